"""Going on from a checkpoint or a finished model, which have the same files: what must fit."""

from __future__ import annotations

from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidArgumentError
from shardfit.saved_spec import check_rounds, check_same, check_same_roles
from shardfit.trainer import Checkpoint
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.model import LightGBMModel


def check_resume(config: LightGBMConfig, roles: ColumnRoles, checkpoint: Checkpoint) -> None:
    """Check that training can go on from a checkpoint. Called on the driver, before any worker starts.

    Raises:
        InvalidArgumentError: Features, number of classes, booster or rounds do not fit.
        ArtifactCorruptError: The checkpoint is none of this trainer's.
    """
    if not resumable(config):
        raise InvalidArgumentError(
            "resuming with boosting 'dart'",
            "LightGBM does not keep the weights of its trees with the model",
            "Train from the beginning, or with boosting 'gbdt'.",
        )
    model = LightGBMModel.from_files(checkpoint.files)
    check_same_roles(roles, model.spec)
    booster = model.booster()
    check_same("num_class", config.objective.classes, booster.num_model_per_iteration())
    check_rounds(config.rounds, booster.current_iteration())


def resumable(config: LightGBMConfig) -> bool:
    """Return whether a run can go on from a checkpoint: the weights of dart's trees are not kept with the model."""
    return config.params.get("boosting") != "dart"

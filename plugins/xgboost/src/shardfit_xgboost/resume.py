"""Going on from a checkpoint or a finished model, which have the same files: what must fit, and what is taken over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xgboost as xgb

from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidArgumentError
from shardfit.saved_spec import check_rounds, check_same, check_same_roles
from shardfit.trainer import Checkpoint
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.model import XGBModel

_COLUMN_SHARES = ("colsample_bytree", "colsample_bylevel", "colsample_bynode")


def check_resume(config: XGBConfig, roles: ColumnRoles, checkpoint: Checkpoint) -> None:
    """Check that training can go on from a checkpoint. Called on the driver, before any worker starts.

    Raises:
        InvalidArgumentError: Features, number of outputs, booster, trees in a round or rounds do not fit.
        ArtifactCorruptError: The checkpoint is none of this trainer's.
    """
    if not resumable(config):
        raise InvalidArgumentError(
            "resuming with lambdarank_unbiased",
            "XGBoost does not keep its position biases with the model",
            "Train from the beginning, or without lambdarank_unbiased.",
        )
    model = XGBModel.from_files(checkpoint.files)
    check_same_roles(roles, model.spec)
    booster = model.booster()
    known = json.loads(booster.save_config())["learner"]
    shape, tree = known["learner_model_param"], known["gradient_booster"]
    wanted = config.objective.classes or max(len(roles.label), len(config.objective.alpha))
    check_same("num_class or the number of outputs", wanted, max(int(shape["num_class"]), int(shape["num_target"])))
    check_same("booster", str(config.params.get("booster", "gbtree")), tree["name"])
    parallel = tree.get("gbtree", tree)["gbtree_model_param"]["num_parallel_tree"]
    check_same("num_parallel_tree", int(config.params.get("num_parallel_tree", 1)), int(parallel))
    check_rounds(config.rounds, booster.num_boosted_rounds())


def load_booster(model: XGBModel, params: Mapping[str, Any], cache: list[Any]) -> Any:
    """Return the booster to go on with.

    Its initial score stays what it was: on other data, another one would change what the trees add up to.

    Args:
        model: From the checkpoint.
        params: Of this run.
        cache: Matrices that will be predicted from.
    """
    kept = {name: value for name, value in params.items() if name != "base_score"}
    booster = xgb.Booster(kept, cache=cache, model_file=bytearray(model.raw))
    booster.set_attr(best_iteration=None, best_score=None)
    return booster


def resumable(config: XGBConfig) -> bool:
    """Return whether a run can go on from a checkpoint: XGBoost does not keep its position biases with the model."""
    return not (config.objective.ranks and config.params.get("lambdarank_unbiased"))


def draws_at_random(config: XGBConfig) -> bool:
    """Return whether XGBoost draws columns or rows with a generator of its own."""
    columns = (float(config.params.get(name, 1.0)) for name in _COLUMN_SHARES)
    return config.native_subsample or any(share < 1.0 for share in columns)


def reseed(booster: Any) -> None:
    """Make the next round draw as if training had begun with it. Called before each round that draws.

    `seed_per_iteration` reseeds the library's generator, but the sampler of columns takes its seed from it only when it
    is made, with the tree updater; another tree method and back make a new one. Nothing else is configured by it.
    """
    booster.set_param({"tree_method": "approx"})
    booster.num_boosted_rounds()
    booster.set_param({"tree_method": "hist"})

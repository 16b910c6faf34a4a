"""What this plugin answers. Imports no framework: lightgbm is imported when a trainer is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardfit.hookspecs import TrainerProvider, hookimpl

if TYPE_CHECKING:
    from shardfit.trainer import Trainer


@hookimpl
def shardfit_trainers() -> Mapping[str, TrainerProvider]:
    """Provide the trainer `lightgbm`."""
    return {"lightgbm": _make_trainer}


def _make_trainer() -> Trainer:
    from shardfit_lightgbm.trainer import LightGBMTrainer

    return LightGBMTrainer()

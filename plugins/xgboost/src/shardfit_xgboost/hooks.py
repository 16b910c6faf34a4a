"""What this plugin answers. Imports no framework: xgboost is imported when a trainer is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardfit.hookspecs import TrainerProvider, hookimpl

if TYPE_CHECKING:
    from shardfit.trainer import Trainer


@hookimpl
def shardfit_trainers() -> Mapping[str, TrainerProvider]:
    """Provide the trainer `xgboost`."""
    return {"xgboost": _make_trainer}


def _make_trainer() -> Trainer:
    from shardfit_xgboost.trainer import XGBTrainer

    return XGBTrainer()

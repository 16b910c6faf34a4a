"""What this plugin answers. Imports no framework: scikit-learn is imported when an estimator is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardfit import hookimpl
from shardfit.hookspecs import TrainerProvider

if TYPE_CHECKING:
    from shardfit import Trainer


@hookimpl
def shardfit_trainers() -> Mapping[str, TrainerProvider]:
    """Provide the trainer `linear`."""
    return {"linear": _make_trainer}


def _make_trainer() -> Trainer:
    from shardfit_sklearn.trainer import LinearTrainer

    return LinearTrainer()

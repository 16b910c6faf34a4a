"""Callbacks that hold the workers of a run until its fault has struck, so that it strikes in its phase and is felt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import xgboost as xgb

# A worker that is to be killed, or cut off, is so before it has gone on.
_AFTERWARDS_SECONDS = 0.5
_LONGEST_SECONDS = 60.0


def hold_of(trainer: str, round_: int, file: Path) -> Any:
    """Return a callback of a framework that holds after a round until `file` is there.

    Args:
        trainer: `xgboost` or `lightgbm`.
        round_: After which the driver strikes.
        file: Made when it has.
    """
    return XGBHold(round_, file) if trainer == "xgboost" else LightGBMHold(round_, file)


def wait_for(file: Path) -> None:
    """Wait until a file is there, and a moment longer; not at all if it was there before."""
    if file.exists():
        return
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(_AFTERWARDS_SECONDS)


class XGBHold(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Holds XGBoost."""

    def __init__(self, round_: int, file: Path) -> None:
        self.round, self.file = round_, file

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Hold after the round; never stops."""
        if epoch == self.round:
            wait_for(self.file)
        return False


class LightGBMHold:
    """Holds LightGBM."""

    def __init__(self, round_: int, file: Path) -> None:
        self.round, self.file = round_, file

    def __call__(self, environment: Any) -> None:
        """Hold after the round."""
        if environment.iteration == self.round:
            wait_for(self.file)

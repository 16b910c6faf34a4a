"""A driver in a process of its own: trains in that process, and holds before a round until a file is there.

python -m tests.shardfit.resumable_program FOLDER ROUND
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from shardfit import Job, train
from shardfit.testing.tables import CATEGORICAL, FEATURES

ROUNDS = 8


def job_in(folder: Path) -> Job:
    """Return the job of every driver and of the undisturbed run."""
    return Job(
        trainer="xgboost",
        data=str(folder / "rows.parquet"),
        columns={"features": FEATURES, "label": ("late",), "categorical": CATEGORICAL},
        params={"n_estimators": ROUNDS, "objective": "binary:logistic", "subsample": 0.8},
        engine="inline",
        stage=str(folder / "stage"),
        checkpoint_every_rounds=2,
    )


class HoldingObserver:
    """Holds the driver after a round until a file is there."""

    def __init__(self, folder: Path, round_: int) -> None:
        self.folder, self.round = folder, round_

    def __call__(self, event: Any) -> None:
        if event.name == "MetricsReported" and event.round == self.round:
            print(event.run_id, flush=True)
            while not (self.folder / "go").exists():
                time.sleep(0.02)


def main(folder: Path, round_: int) -> None:
    """Train."""
    try:
        result = train(job_in(folder), observers=[HoldingObserver(folder, round_)])
        print("published", result.model_address, flush=True)
    except Exception as error:  # noqa: BLE001 - whoever started this reads it
        print(type(error).__name__, error, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

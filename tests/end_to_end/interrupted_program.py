"""A program that trains until Ctrl-C: `python -m tests.end_to_end.interrupted_program inline|ray FOLDER`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import xgboost as xgb

from shardfit.connector import DataConnector
from shardfit.events import Event, MetricsReported
from shardfit.testing.tables import awkward_table
from tests.end_to_end.fitting import fitted


class Wait(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Notes its process, and waits for ever after two rounds."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch == 0:
            Path(self.folder, f"pid-{xgb.collective.get_rank()}").write_text(str(os.getpid()))
        while epoch == 2:
            time.sleep(0.05)
        return False


def tell(event: Event) -> None:
    if isinstance(event, MetricsReported) and event.round == 1:
        print("waiting", flush=True)


if __name__ == "__main__":
    engine, folder = sys.argv[1:]
    fitted(
        DataConnector.from_arrow(awkward_table(2_000)),
        workers=2 if engine == "ray" else 1,
        stage=Path(folder, "stage"),
        callbacks=[Wait(folder)],
        observers=[tell],
        rounds=5,
    )

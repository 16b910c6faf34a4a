"""What checkpoints cost at the default setting: the time that making them takes, as a part of the time of all rounds.

    python -m benchmarks.checkpoints --rows 400000 --rounds 400

Trains in this process, and takes the time of every round and of every checkpoint within it; the store writes meanwhile
on the same machine, which is the worst case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardfit import Job, train
from shardfit.checkpoint_pace import CheckpointPace
from shardfit.events import CheckpointStored, Event, Progress

_PARAMS: dict[str, dict[str, Any]] = {
    "xgboost": {"objective": "binary:logistic", "max_depth": 8},
    "lightgbm": {"objective": "binary", "num_leaves": 127},
}
_ROUNDS = {"xgboost": "n_estimators", "lightgbm": "num_iterations"}


@contextmanager
def timed(costs: list[float]) -> Iterator[None]:
    """Add the seconds of every checkpoint that is tried or made while the context lasts to `costs`."""
    measures = {"making": CheckpointPace.making, "trying": CheckpointPace.trying}

    def timed_as(measure: Any) -> Any:
        @contextmanager
        def timing(self: CheckpointPace, rounds: int) -> Iterator[None]:
            begun = time.perf_counter()
            with measure(self, rounds):
                yield
            costs.append(time.perf_counter() - begun)

        return timing

    for name, measure in measures.items():
        setattr(CheckpointPace, name, timed_as(measure))
    try:
        yield
    finally:
        for name, measure in measures.items():
            setattr(CheckpointPace, name, measure)


def measured(trainer: str, rows: int, rounds: int, stage: Path) -> str:
    """Return a line that says what checkpoints cost.

    Args:
        trainer: `xgboost` or `lightgbm`.
        rows: Of the table.
        rounds: To train.
        stage: Where checkpoints go.
    """
    draw = np.random.default_rng(0)
    values = draw.normal(size=(20, rows)).astype(np.float32)
    label = (values[0] * values[1] + draw.normal(size=rows) > 0).astype(np.int8)
    table = pa.table({**{f"f{number}": column for number, column in enumerate(values)}, "label": label})
    times: list[float] = []
    stored: list[int] = []
    costs: list[float] = []

    def observer(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "fit":
            times.append(time.perf_counter())
        elif isinstance(event, CheckpointStored):
            stored.append(event.step)

    params = {**_PARAMS[trainer], _ROUNDS[trainer]: rounds}
    with timed(costs):
        fields: dict[str, Any] = {"columns": {"label": ("label",)}, "engine": "inline", "stage": str(stage)}
        job = Job(trainer=trainer, data=table, params=params, **fields)
        train(job, observers=[observer])
    seconds, cost = times[-1] - times[0], sum(costs)
    share = 100 * cost / seconds
    taken = ", ".join(f"{1000 * value:.0f}" for value in costs)
    return (
        f"{trainer}: {rounds} rounds in {seconds:.1f} s, {len(stored)} checkpoints after rounds {stored}; "
        f"the trial and they took {taken} ms: {share:.2f} %"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--trainer", choices=sorted(_PARAMS), help="only this one")
    given = parser.parse_args()
    for trainer in [given.trainer] if given.trainer else _PARAMS:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(trainer, given.rows, given.rounds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

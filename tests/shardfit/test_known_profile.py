"""After a loss no row is looked at again for the profile, and what the rows hold is checked all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.holds import hold_of
from shardfit import Job, TrainResult, train
from shardfit.connector import DataConnector
from shardfit.coverage import DatasetCoverage, RowDigest, check_coverage
from shardfit.errors import CoverageError
from shardfit.events import Event, PlanMade, ProfileMade, Progress
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from tests.shardfit.worker_processes import LastWorkerKiller, training_on

TABLE, HELD_OUT = awkward_table(2_000), awkward_table(500)
HELD_AFTER = 3
ROUNDS = {
    "xgboost": {"n_estimators": 6, "objective": "reg:squarederror"},
    "lightgbm": {"num_iterations": 6, "objective": "regression"},
}


def trained(trainer: str, stage: Path, **changes: Any) -> TrainResult:
    fields: dict[str, Any] = {
        "trainer": trainer,
        "data": DataConnector.from_arrow(TABLE),
        "evals": {"held_out": DataConnector.from_arrow(HELD_OUT)},
        "columns": {"features": FEATURES, "label": "delay", "categorical": CATEGORICAL},
        # Held after a round until the last worker is killed.
        "params": {**ROUNDS[trainer], "callbacks": [hold_of(trainer, HELD_AFTER, stage.parent / "killed")]},
        "stage": str(stage),
        "cpus_per_worker": 1,
        "checkpoint_every_rounds": 2,
    }
    observers = changes.pop("observers", ())
    return train(Job(**{**fields, **changes}), observers=observers)


def files_of(result: TrainResult) -> dict[str, Any]:
    return dict(result.trainer.save(result.model))


def profiled(events: list[Event], attempt: int) -> bool:
    return any(
        isinstance(event, Progress) and event.attempt == attempt and event.phase == "profile" for event in events
    )


@pytest.mark.parametrize(("trainer", "left"), [("xgboost", 3), ("xgboost", 2), ("lightgbm", 2), ("lightgbm", 1)])
def test_the_next_attempt_goes_by_the_profile_of_the_first(tmp_path: Path, trainer: str, left: int) -> None:
    with training_on(3) as engine:
        killer = LastWorkerKiller(engine, left, tmp_path / "killed", HELD_AFTER)
        result = trained(trainer, tmp_path / "stage", engine="ray", workers=3, observers=[killer])
    workers = [event.workers for event in killer.events if isinstance(event, PlanMade)]
    assert workers == [3, left]
    assert (profiled(killer.events, 1), profiled(killer.events, 2)) == (True, False)
    first, second = (event for event in killer.events if isinstance(event, ProfileMade))
    assert (first.rows, first.sample_rows) == (second.rows, second.sample_rows) == (2_000, 2_000)
    assert files_of(result) == files_of(trained(trainer, tmp_path / "undisturbed", engine="inline"))
    assert result.coverage["train"].exact
    assert result.coverage["train"].profiled_content is not None


def test_rows_that_hold_something_else_than_when_they_were_profiled_are_found() -> None:
    rows = RowDigest()
    parts = [{"train": DatasetCoverage(rows, rows, 0, None, content)} for content in (3, 2**64 - 1)]
    assert check_coverage(parts, {"train": 2})["train"].profiled_content == 2
    with pytest.raises(CoverageError, match="content 4 when profiled, 2 when handed over"):
        check_coverage(parts, {"train": 4})

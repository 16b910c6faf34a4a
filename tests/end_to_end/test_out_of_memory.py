"""A worker that trains and runs out of memory, in a control group of its own: what is said, and what the run does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xgboost as xgb

from scripts.memory_group import MemoryGroup, memory_group, why_impossible
from shardfit.connector import DataConnector
from shardfit.errors import WorkerLostError
from shardfit.events import CheckpointStored, Event, PlanMade, WorkerLost
from shardfit.testing.tables import awkward_table
from tests.end_to_end.fitting import failure, fitted
from tests.shardfit.worker_processes import MEMORY_GROUP, ProcessEngine, training_on

# With those of lost workers in one process, they need not wait for them.
pytestmark = [pytest.mark.kills, pytest.mark.xdist_group("ray")]

TABLE = awkward_table(2_000)
ROUNDS, EATEN_AFTER = 8, 5
ADVICE = "Give it more memory, use more workers, or fewer columns or bins."


class Eater(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Lets the last worker take memory after a round until the kernel ends it.

    Args:
        once: Made before; it is not done again where this is there. None for each time.
    """

    def __init__(self, once: Path | None) -> None:
        self.once = once

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        last = xgb.collective.get_rank() == xgb.collective.get_world_size() - 1
        if epoch < EATEN_AFTER or not last or (self.once is not None and self.once.exists()):
            return False
        if self.once is not None:
            self.once.touch()
        taken = []
        while True:
            taken.append(bytearray(b"x" * 2**24))


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryGroup]:
    """The control group that the last of two workers is in."""
    if (reason := why_impossible()) is not None:
        pytest.skip(f"no limit of memory here; {reason}")
    with memory_group(512 * 2**20) as group:
        monkeypatch.setenv(MEMORY_GROUP, str(group.path))
        yield group


@pytest.fixture
def engine() -> Iterator[ProcessEngine]:
    with training_on(2) as started:
        yield started


def trees_of(booster: xgb.Booster) -> Any:
    return json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]


def losses(events: list[Event]) -> list[WorkerLost]:
    return [event for event in events if isinstance(event, WorkerLost)]


def test_a_worker_that_runs_out_of_memory_is_told_so_and_the_run_goes_on(
    tmp_path: Path, limited: MemoryGroup, engine: ProcessEngine
) -> None:
    events: list[Event] = []
    estimator = fitted(
        DataConnector.from_arrow(TABLE),
        workers=2,
        rounds=ROUNDS,
        stage=tmp_path / "stage",
        callbacks=[Eater(tmp_path / "once")],
        checkpoint_every_rounds=2,
        observers=[events.append],
    )
    (lost,) = losses(events)
    found = (lost.worker, lost.node, lost.pid, lost.phase, lost.cause, lost.signal)
    assert found == (1, "node-1", engine.groups[0].pids[1], "fit", "out of memory", "SIGKILL")
    assert "the kernel killed it because its memory control group ran out of memory" in lost.reason
    assert "MiB of memory when last heard" in lost.reason
    assert ADVICE in lost.reason
    assert limited.kills == 1
    # The node is there, and the policy does not know that its memory is too small: it takes it again.
    first, second = (event for event in events if isinstance(event, PlanMade))
    assert (first.workers, second.workers) == (2, 2)
    assert "After a loss the run goes on with 2 workers; it had 2." in second.reasons
    undisturbed = fitted(DataConnector.from_arrow(TABLE), rounds=ROUNDS).get_booster()
    assert trees_of(estimator.get_booster()) == trees_of(undisturbed)


def test_a_worker_that_runs_out_of_memory_each_time_ends_the_run_with_advice(
    tmp_path: Path, limited: MemoryGroup, engine: ProcessEngine
) -> None:
    left = failure(
        DataConnector.from_arrow(TABLE),
        tmp_path / "stage",
        WorkerLostError,
        workers=2,
        rounds=ROUNDS,
        callbacks=[Eater(None)],
        checkpoint_every_rounds=2,
        max_attempts=2,
    )
    assert [event.cause for event in losses(left.events)] == ["out of memory"] * 2
    assert limited.kills == 2
    assert ADVICE in left.message
    assert left.record.status == "failed"
    # With more memory, it can go on from here.
    stored = [event.artifact for event in left.events if isinstance(event, CheckpointStored)]
    assert stored[-1] in left.artifacts
    assert left.record.resume["run_id"] == left.record.run_id

"""A worker that was given up and comes back goes on where it was; what it makes counts for nothing."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import xgboost as xgb

from shardfit import Job, train
from shardfit.connector import DataConnector
from shardfit.engines import failure_detector
from shardfit.engines.task_runner import EventBatch, Outcome
from shardfit.errors import StaleAttemptError
from shardfit.events import CheckpointOffered, CheckpointStored, Event, MetricsReported, WorkerLost
from shardfit.registry import default_registry
from shardfit.run import Run
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit.train import run_to_end
from tests.shardfit.worker_processes import ProcessEngine, training_on

ROUNDS, GATE = 8, 5


class Gate(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Holds before a round until a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        while epoch == GATE and not self.file.exists():
            time.sleep(0.01)
        return False


class CutOffWorker:
    """The first worker of an engine, stopped, and out of reach of its group as if its network was cut.

    Args:
        engine: Has started its first group.
    """

    exitcode = None

    def __init__(self, engine: ProcessEngine) -> None:
        group = engine.groups[0]
        self.pid = group.pids[0]
        os.kill(self.pid, signal.SIGSTOP)
        self._process, group._workers[0] = group._workers[0], self
        # Its line stays open when the group closes its own end.
        self._line = Connection(os.dup(group._lines[0].fileno()))

    def kill(self) -> None:
        """Reach nobody, as all that the group asks for."""

    join = close = kill

    def come_back(self) -> tuple[list[Event], Outcome]:
        """Let it go on to the end of its task; returns all that it says."""
        os.kill(self.pid, signal.SIGCONT)
        events: list[Event] = []
        outcome: Outcome | None = None
        # Its driver's last poll is under way still.
        polls, last = 1, False
        while outcome is None or polls or not last:
            if not polls and not last:
                self._line.send((1_000_000, "next_events", cloudpickle.dumps((0.2,))))
                polls += 1
            answer = pickle.loads(self._line.recv()[1])
            if isinstance(answer, Outcome):
                outcome = answer
            elif isinstance(answer, EventBatch):
                events += answer.events
                polls, last = polls - 1, answer.last
        return events, outcome

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._line.close()


class Return:
    """An observer that cuts a worker off, and has it come back in the next attempt, before anything is published.

    Args:
        engine: Has no group yet.
        store: Of the run.
        go: The gate's file.
    """

    def __init__(self, engine: ProcessEngine, store: LocalStore, go: Path) -> None:
        self.engine, self.store, self.go = engine, store, go
        self.run: Run | None = None
        self.worker: CutOffWorker | None = None
        self.seen: list[Event] = []
        self.said: list[Event] = []
        self.outcome = Outcome()
        self.stored: list[list[str]] = []
        self.told: list[Event] = []
        self.refused: list[str] = []

    def __call__(self, event: Event) -> None:
        """Take an event. What an observer raises is only logged, so a test looks at what this leaves."""
        self.seen.append(event)
        if not isinstance(event, MetricsReported):
            return
        if event.attempt == 1 and event.round == GATE - 1:
            self.worker = CutOffWorker(self.engine)
            self.go.touch()
        elif event.attempt == 2 and not self.said:
            self.come_back()

    def come_back(self) -> None:
        """Deliver what the worker says, and try to publish what it made."""
        assert self.worker is not None
        assert self.run is not None
        self.said, self.outcome = self.worker.come_back()
        before = len(self.seen)
        self.stored.append(sorted(self.store.list()))
        for late in self.said:
            self.run.on_event(late)
        self.publish()
        self.stored.append(sorted(self.store.list()))
        self.told = self.seen[before:]

    def publish(self) -> None:
        """Publish the model of the older attempt."""
        assert self.run is not None
        try:
            self.store.put(f"model/{self.run.run_id}", self.outcome.value.value.files(), {}, attempt=1)
        except StaleAttemptError as error:
            self.refused.append(str(error))


def job_on(engine: str, stage: Path, **changes: Any) -> Job:
    params = {"n_estimators": ROUNDS, "objective": "binary:logistic", **changes}
    columns = {"features": FEATURES, "label": ("late",), "categorical": CATEGORICAL}
    data = DataConnector.of(awkward_table(600))
    fields: dict[str, Any] = {"workers": 1, "checkpoint_every_rounds": 2, "stage": str(stage)}
    return Job(trainer="xgboost", data=data, columns=columns, params=params, engine=engine, **fields)


def trees_of(result: Any) -> Any:
    return json.loads(result.model.booster().save_raw("json"))["learner"]["gradient_booster"]


@pytest.fixture
def engine() -> Iterator[ProcessEngine]:
    with training_on(1) as engine:
        yield engine


def test_a_worker_of_an_older_attempt_that_comes_back_neither_publishes_nor_overwrites(
    engine: ProcessEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_detector, "SILENT_SECONDS", 1.0)
    store, go, registry = LocalStore(tmp_path / "stage"), tmp_path / "go", default_registry()
    back = Return(engine, store, go)
    back.run = run = Run.start(job_on("ray", store.root, callbacks=[Gate(go)]), registry, [back])
    try:
        result = run_to_end(run, registry)
    finally:
        if back.worker is not None:
            back.worker.end()
    assert back.worker is not None
    (lost,) = [event for event in back.seen if isinstance(event, WorkerLost)]
    assert (lost.cause, lost.pid) == ("frozen", back.worker.pid)
    # It had as much to offer as any: checkpoints after rounds that were not done yet, and a whole model.
    assert [event.step for event in back.said if isinstance(event, CheckpointOffered)] == [6, 8]
    assert not back.outcome.failed
    back.publish()
    assert ["attempt 2 has taken over" in message for message in back.refused] == [True, True]
    assert back.stored[0] == back.stored[1]
    assert not [event for event in back.told if isinstance(event, MetricsReported | CheckpointStored)]
    assert store.manifest(f"model/{run.run_id}").attempt == 2
    (kept,) = store.list(f"run/{run.run_id}/checkpoint-")
    assert (kept.rsplit("/")[-1], store.manifest(kept).attempt) == ("checkpoint-2-8", 2)
    assert trees_of(result) == trees_of(train(job_on("inline", tmp_path / "undisturbed")))

"""A checkpoint that comes in pieces is stored once all have come, and only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardfit.connector import DataConnector
from shardfit.engine import WorkerContext
from shardfit.errors import WorkerLostError
from shardfit.events import CheckpointOffered, CheckpointStored, Event
from shardfit.hookspecs import hookimpl
from shardfit.job import Job
from shardfit.registry import Registry
from shardfit.run import Run
from shardfit.stores.local import LocalStore
from shardfit.testing.mean_trainer import MeanTrainer
from shardfit.testing.tables import awkward_table
from shardfit.testing.worker_threads import train_on_threads
from shardfit.trainer import WorkerReport


def run_of(stage: Path, events: list[Event]) -> Run:
    job = Job(trainer="mean", data=DataConnector.of(awkward_table(10)), stage=str(stage))
    return Run.start(job, Registry(), [events.append])


def offered(step: int, worker: int) -> CheckpointOffered:
    return CheckpointOffered(attempt=1, step=step, files={f"part-{worker}": b"x"}, worker=worker, pieces=2)


def test_a_checkpoint_is_stored_when_its_last_piece_has_come(tmp_path: Path) -> None:
    events: list[Event] = []
    run = run_of(tmp_path, events)
    for part in (offered(1, 1), offered(2, 1), offered(2, 0), offered(1, 0)):
        run.on_event(part)
    stored = [event.step for event in events if isinstance(event, CheckpointStored)]
    # The first step was given up for the second, which was whole before it.
    assert stored == [2]
    (artifact,) = LocalStore(tmp_path).list(f"run/{run.run_id}/checkpoint-")
    assert [entry.name for entry in LocalStore(tmp_path).manifest(artifact).files] == ["part-0", "part-1"]


def test_pieces_of_a_failed_attempt_do_not_meet_those_of_the_next(tmp_path: Path) -> None:
    events: list[Event] = []
    run = run_of(tmp_path, events)
    run.on_event(offered(1, 0))
    run.lost(WorkerLostError("running worker 1", "it is gone"))
    run.on_event(offered(1, 1))
    assert [event for event in events if isinstance(event, CheckpointStored)] == []


class Dealing(MeanTrainer):
    """Deals rows itself, so to say: it looks at what it is given."""

    deals_rows = True

    def run_worker(self, context: WorkerContext, shards: Any, config: Any, settings: Any, meeting: Any) -> WorkerReport:
        reader = shards["train"]
        context.offer_checkpoint(1, {f"part-{context.rank}": b"x"}, from_every_worker=True)
        return WorkerReport((reader.source.schema().names, [f.rows for f in settings.fragments["train"]]), {})

    def collect(self, values: Sequence[Any]) -> Any:
        return values

    def save(self, model: Any) -> Mapping[str, bytes]:
        return {"model": repr(model).encode()}


class Plugin:
    @hookimpl
    def shardfit_trainers(self) -> Any:
        return {"dealing": Dealing}


def test_a_trainer_that_deals_rows_is_given_all_fragments_and_all_workers(tmp_path: Path) -> None:
    registry = Registry()
    registry.register(Plugin())
    events: list[Event] = []
    few = awkward_table(100).slice(0, 2)
    job = Job(trainer="dealing", data=DataConnector.of(few), columns={"label": "delay"}, stage=str(tmp_path))
    result = train_on_threads(job, 3, registry=registry, observers=[events.append])
    assert result.model == [(few.schema.names, [2])] * 3
    assert result.plan.casts == ()
    assert [event.step for event in events if isinstance(event, CheckpointStored)] == [1]

"""What a run has left is not lost by a failed resume, by a driver that comes back, or by two that resume at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shardfit import Cancellation, Job, resume_run, train
from shardfit.artifacts import Manifest
from shardfit.checkpoints import load_checkpoint
from shardfit.errors import ArtifactError, ChangedDataError, RunCancelledError, ShardfitError, StaleAttemptError
from shardfit.events import CheckpointOffered, Event, MetricsReported
from shardfit.job.portable import job_from_portable, portable_job
from shardfit.presence import Presence, SignOfLife, find_presence
from shardfit.registry import default_registry
from shardfit.run import Run
from shardfit.run_record import RunRecord, record_of, save_record
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import awkward_table
from shardfit.train import run_to_end
from tests.shardfit.resumable_program import job_in

RUN = "20260101-000000000000-00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(awkward_table(300), tmp_path / "rows.parquet")
    return tmp_path


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "stage")


def cancelled(job: Job, round_: int = 5) -> str:
    cancellation, seen = Cancellation(), []

    def observer(event: Event) -> None:
        seen.append(event.run_id)
        if isinstance(event, MetricsReported) and event.round == round_:
            cancellation.cancel()

    with pytest.raises(RunCancelledError):
        train(job, observers=[observer], cancellation=cancellation)
    return str(seen[-1])


def test_a_resume_that_finds_no_data_can_be_made_again(folder: Path, store: LocalStore) -> None:
    run_id = cancelled(job_in(folder))
    (folder / "rows.parquet").rename(folder / "away.parquet")
    with pytest.raises(ShardfitError):
        resume_run(run_id, str(store.root))
    (folder / "away.parquet").rename(folder / "rows.parquet")
    assert resume_run(run_id, str(store.root)).run_id == run_id


def test_a_resume_that_finds_other_data_does_not_make_that_the_data_of_the_run(folder: Path, store: LocalStore) -> None:
    run_id = cancelled(job_in(folder))
    (folder / "rows.parquet").rename(folder / "away.parquet")
    pq.write_table(awkward_table(200), folder / "rows.parquet")
    for _ in range(2):
        with pytest.raises(ChangedDataError):
            resume_run(run_id, str(store.root))
    (folder / "away.parquet").rename(folder / "rows.parquet")
    assert resume_run(run_id, str(store.root)).run_id == run_id


def test_a_run_that_began_from_another_does_so_when_it_is_resumed(folder: Path) -> None:
    job = job_in(folder).model_copy(update={"resume_from": "model/earlier"})
    assert job_from_portable(portable_job(job), job.stage).resume_from == "model/earlier"


# Who may write.


def test_a_driver_that_was_shut_out_leaves_the_record_of_its_successor(store: LocalStore) -> None:
    store.fence(RUN, 3)
    save_record(store, RunRecord(run_id=RUN, attempts=3, status="finished", trainer="xgboost"))
    with pytest.raises(StaleAttemptError):
        save_record(store, RunRecord(run_id=RUN, attempts=2, status="failed", trainer="xgboost"))
    record = record_of(store, RUN)
    assert record is not None
    assert record.status == "finished"


def test_of_two_drivers_that_make_the_same_attempt_the_second_is_told(store: LocalStore) -> None:
    first, second = SignOfLife(store, every_s=0.02), SignOfLife(store)
    first.show(Presence(run_id="a", attempt=2))
    # Signs go again: who waits for one of them may miss it.
    while max((int(sign.rpartition("-")[2]) for sign in store.list("run/a/alive-")), default=0) < 3:
        time.sleep(0.01)
    with pytest.raises(StaleAttemptError, match="another driver makes attempt 2"):
        second.show(Presence(run_id="a", attempt=2))
    second.end()
    assert find_presence(store, "a") is not None
    first.end()
    assert not list(store.list("run/a/"))


def test_the_second_of_two_drivers_leaves_no_record(folder: Path, store: LocalStore) -> None:
    run_id = cancelled(job_in(folder))
    first = SignOfLife(store)
    first.show(Presence(run_id=run_id, attempt=2))
    second = Run(run_id, job_in(folder), default_registry(), store, (), attempt=2)
    with pytest.raises(StaleAttemptError, match="another driver makes attempt 2"):
        run_to_end(second, default_registry())
    record = record_of(store, run_id)
    assert record is not None
    assert record.attempts == 1
    first.end()


# A store that fails at one thing.


class Failing(LocalStore):
    """Refuses what it is told to refuse."""

    refused: tuple[str, ...] = ()

    def put(
        self,
        artifact: str,
        files: Mapping[str, bytes | Path],
        metadata: Mapping[str, Any] | None = None,
        attempt: int = 1,
    ) -> Manifest:
        if "put" in self.refused and artifact.endswith("/record"):
            raise ArtifactError("putting", "the store is full")
        return super().put(artifact, files, metadata, attempt)

    def delete(self, artifact: str) -> None:
        if "delete" in self.refused and "checkpoint" in artifact:
            raise ArtifactError("deleting", "the store does not let you")
        super().delete(artifact)


def presence_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "shardfit-presence"]


@pytest.mark.parametrize("error", [None, ValueError("a bug")])
def test_where_the_record_is_refused_the_last_sign_stays_and_no_thread_does(
    folder: Path, store: LocalStore, error: ValueError | None
) -> None:
    failing = Failing(store.root)
    object.__setattr__(failing, "refused", ("put",))
    run = Run(RUN, job_in(folder), default_registry(), failing, ())

    def end() -> None:
        with run:
            run._life.show(Presence(run_id=RUN, attempt=1))
            if error:
                raise error

    with pytest.raises(type(error) if error else ArtifactError):
        end()
    assert not presence_threads()
    assert find_presence(store, RUN) is not None


def offered(step: int, attempt: int = 1) -> CheckpointOffered:
    return CheckpointOffered(attempt=attempt, step=step, files={"model": b"%d" % step}, worker=0)


def checkpoints(store: LocalStore) -> list[str]:
    return list(store.list(f"run/{RUN}/checkpoint-"))


def test_an_old_checkpoint_that_cannot_be_removed_ends_no_run(folder: Path, store: LocalStore) -> None:
    failing = Failing(store.root)
    object.__setattr__(failing, "refused", ("delete",))
    run = Run(RUN, job_in(folder), default_registry(), failing, ())
    for step in (2, 4):
        run.on_event(offered(step))
    assert len(checkpoints(store)) == 2
    object.__setattr__(failing, "refused", ())
    run.on_event(offered(6))
    assert checkpoints(store) == [f"run/{RUN}/checkpoint-1-6"]


def test_a_resumed_run_removes_the_checkpoints_of_the_attempts_before(folder: Path, store: LocalStore) -> None:
    Run(RUN, job_in(folder), default_registry(), store, ()).on_event(offered(2))
    Run(RUN, job_in(folder), default_registry(), store, (), attempt=2).on_event(offered(4, attempt=2))
    assert checkpoints(store) == [f"run/{RUN}/checkpoint-2-4"]


def test_metrics_that_are_no_numbers_keep_their_rounds(folder: Path, store: LocalStore) -> None:
    run = Run(RUN, job_in(folder), default_registry(), store, ())
    for number, value in enumerate([1.0, float("nan"), float("-inf"), 2.0]):
        run.on_event(MetricsReported(round=number, metrics={"test-auc": value}))
    run.on_event(offered(4))
    metrics = load_checkpoint(store, checkpoints(store)[0]).metrics["test-auc"]
    assert [repr(metrics[number]) for number in range(4)] == ["1.0", "nan", "-inf", "2.0"]

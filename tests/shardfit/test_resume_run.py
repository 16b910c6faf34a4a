"""A run whose driver is gone is seen as lost and can be resumed; a driver that comes back can do no harm any more."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from shardfit import Cancellation, Job, resume_run, train
from shardfit.cli import app
from shardfit.errors import (
    ArtifactNotFoundError,
    ChangedDataError,
    InvalidArgumentError,
    InvalidJobError,
    RunCancelledError,
    StaleAttemptError,
)
from shardfit.events import Event, MetricsReported
from shardfit.job.portable import job_from_portable, portable_job
from shardfit.presence import Presence, SignOfLife, find_presence, list_runs
from shardfit.run_record import record_of
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import awkward_table
from tests.shardfit.resumable_program import ROUNDS, job_in

TABLE = awkward_table(600)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=200)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "stage")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    pq.write_table(TABLE, folder / "rows.parquet", row_group_size=200)
    return trees_of(train(job_in(folder)))


def trees_of(result: Any) -> bytes:
    model = json.loads(result.model.booster().save_raw("json"))
    return json.dumps(model["learner"]["gradient_booster"]).encode()


class Driver:
    """A driver in another process, which holds after a round."""

    def __init__(self, folder: Path, round_: int = 5) -> None:
        command = [sys.executable, "-m", "tests.shardfit.resumable_program", str(folder), str(round_)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.run_id = self.process.stdout.readline().strip()
        self.folder = folder

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def let_go(self) -> str:
        (self.folder / "go").touch()
        return self.process.communicate(timeout=60)[0].strip()


@pytest.fixture
def driver(folder: Path) -> Iterator[Driver]:
    started = Driver(folder)
    yield started
    started.process.kill()
    started.process.communicate()


def statuses(store: LocalStore) -> list[str]:
    return [run.status for run in list_runs(store, datetime.now(UTC))]


def test_a_run_whose_driver_was_killed_is_lost_and_is_resumed_from_its_last_checkpoint(
    driver: Driver, store: LocalStore, undisturbed: bytes
) -> None:
    assert statuses(store) == ["running"]
    driver.kill()
    assert statuses(store) == ["lost"]
    events: list[Event] = []
    result = resume_run(driver.run_id, str(store.root), observers=[events.append])
    assert trees_of(result) == undisturbed
    assert (result.run_id, result.attempts) == (driver.run_id, 2)
    # It had stored a checkpoint after four rounds, and six are done by the next.
    assert [event.round for event in events if isinstance(event, MetricsReported)] in ([4, 5, 6, 7], [6, 7])
    assert statuses(store) == ["finished"]
    assert not list(store.list(f"run/{driver.run_id}/alive"))
    with pytest.raises(InvalidArgumentError, match="it is finished; its model is"):
        resume_run(driver.run_id, str(store.root))


def test_a_run_whose_driver_lives_is_not_resumed(driver: Driver, store: LocalStore) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"its driver is alive: process {driver.process.pid} on"):
        resume_run(driver.run_id, str(store.root))


def test_a_driver_that_comes_back_can_neither_publish_nor_keep_a_checkpoint(
    driver: Driver, store: LocalStore, undisturbed: bytes
) -> None:
    driver.process.send_signal(signal.SIGSTOP)
    result = resume_run(driver.run_id, str(store.root), take_over=True)
    left = sorted(store.list())
    driver.process.send_signal(signal.SIGCONT)
    assert driver.let_go().startswith(f"StaleAttemptError putting 'run/{driver.run_id}")
    assert sorted(store.list()) == left
    assert store.manifest(f"model/{driver.run_id}").attempt == 2
    assert statuses(store) == ["finished"]
    assert trees_of(result) == undisturbed


def test_the_command_line_shows_and_resumes(driver: Driver, store: LocalStore) -> None:
    driver.kill()
    shown = CliRunner().invoke(app, ["runs", "--stage", str(store.root)])
    assert "lost" in shown.output
    assert f"its driver (process {driver.process.pid} on" in shown.output
    resumed = CliRunner().invoke(app, ["runs", "resume", driver.run_id, "--stage", str(store.root), "--json"])
    assert resumed.exit_code == 0, resumed.output
    assert "attempt 2" not in resumed.stdout
    assert json.loads(resumed.stdout.splitlines()[-1])["attempts"] == 2


def cancelled(job: Job, round_: int) -> str:
    cancellation, seen = Cancellation(), []

    def observer(event: Event) -> None:
        seen.append(event.run_id)
        if isinstance(event, MetricsReported) and event.round == round_:
            threading.Thread(target=cancellation.cancel).start()
            while not cancellation.cancelled:
                time.sleep(0.01)

    with pytest.raises(RunCancelledError, match="the run was cancelled"):
        train(job, observers=[observer], cancellation=cancellation)
    return str(seen[-1])


def test_a_cancelled_run_says_so_and_is_resumed(folder: Path, store: LocalStore, undisturbed: bytes) -> None:
    run_id = cancelled(job_in(folder), 5)
    assert statuses(store) == ["cancelled"]
    record = record_of(store, run_id)
    assert record is not None
    assert record.error.startswith("RunCancelledError")
    assert trees_of(resume_run(run_id, str(store.root))) == undisturbed
    assert statuses(store) == ["finished"]


def test_a_run_on_data_in_memory_is_resumed_with_its_job_and_no_other(
    folder: Path, store: LocalStore, undisturbed: bytes
) -> None:
    job = job_in(folder).model_copy(update={"data": Job(trainer="x", data=TABLE).data})
    run_id = cancelled(job, 5)
    with pytest.raises(InvalidArgumentError, match="the data is in memory"):
        resume_run(run_id, str(store.root))
    other = job.model_copy(update={"seed": 5})
    with pytest.raises(InvalidArgumentError, match="its 'seed' is 0, that of the job passed is 5"):
        resume_run(run_id, job=other)
    assert trees_of(resume_run(run_id, job=job)) == undisturbed


def test_a_run_is_not_resumed_on_other_data(folder: Path, store: LocalStore) -> None:
    run_id = cancelled(job_in(folder), 5)
    pq.write_table(TABLE.slice(0, 400), folder / "rows.parquet")
    with pytest.raises(ChangedDataError, match="its data is not what it was"):
        resume_run(run_id, str(store.root))
    # What it left is still there for the right data.
    assert list(store.list(f"run/{run_id}/checkpoint"))


def test_an_unknown_run_is_said(store: LocalStore) -> None:
    with pytest.raises(ArtifactNotFoundError, match="knows no such run"):
        resume_run("20260101-000000000000-00", str(store.root))


# The sign of life.


def test_a_driver_on_another_machine_lives_while_its_signs_come() -> None:
    elsewhere = Presence(run_id="a", attempt=1, machine="elsewhere", pid=1, at=NOW.isoformat())
    assert elsewhere.alive(NOW + timedelta(seconds=59))
    assert not elsewhere.alive(NOW + timedelta(seconds=61))
    assert elsewhere.here().alive(NOW + timedelta(days=1))


def test_signs_of_life_follow_each_other_and_end(store: LocalStore) -> None:
    life = SignOfLife(store, every_s=0.02)
    life.show(Presence(run_id="a", attempt=1))
    # Signs go again: who waits for one of them may miss it.
    while max((int(sign.rpartition("-")[2]) for sign in store.list("run/a/alive-1-")), default=0) < 2:
        time.sleep(0.01)
    assert find_presence(store, "a") is not None
    assert len(list(store.list("run/a/"))) <= 3
    life.end()
    assert not list(store.list("run/a/"))


def test_what_is_no_sign_of_life_is_passed_over(store: LocalStore) -> None:
    sign = asdict(Presence(run_id="a", attempt=1).here())
    for name, content in {
        "alive-x": sign,
        "alive-1-1": {**sign, "at": "yesterday"},
        "alive-1-2": {**sign, "at": "2026-01-01"},
        "alive-1-3": {**sign, "pid": "7"},
    }.items():
        store.put(f"run/a/{name}", {"presence.json": json.dumps(content).encode()})
    assert find_presence(store, "a") is None
    store.put("run/a/alive-1-4", {"other.json": b"{}"})
    assert find_presence(store, "a") is None
    assert list(list_runs(store, NOW)) == []


def test_a_driver_learns_that_its_run_was_taken_over(store: LocalStore) -> None:
    life = SignOfLife(store, every_s=0.02)
    life.show(Presence(run_id="a", attempt=1))
    store.fence("a", 2)
    while "shardfit-presence" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.01)
    with pytest.raises(StaleAttemptError):
        life.check()
    life.end()


def test_a_driver_does_not_take_its_own_next_attempt_for_that_of_another(store: LocalStore) -> None:
    class SlowFence(LocalStore):
        def fence(self, run_id: str, attempt: int) -> None:
            super().fence(run_id, attempt)
            time.sleep(0.1)

    life = SignOfLife(SlowFence(store.root), every_s=0.01)
    for attempt in (1, 2, 3):
        life.show(Presence(run_id="a", attempt=attempt))
        with pytest.raises(StaleAttemptError):
            store.put("run/a/late", {"x": b""}, attempt=attempt - 1)
    life.check()
    life.end()


# A job that is written down.


def test_a_job_survives_being_written_down(folder: Path) -> None:
    job = job_in(folder)
    again = job_from_portable(json.loads(json.dumps(portable_job(job))), job.stage)
    assert again.describe() == job.describe()
    assert again.params["n_estimators"] == ROUNDS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": TABLE}, "the data is in memory"),
        ({"params": {"objective": len}}, "it holds what JSON cannot"),
        ({"data": {"path": "a.csv", "options": {"storage_options": {"secret_key": "x"}}}}, "it needs secrets"),
    ],
)
def test_what_cannot_be_written_down_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        portable_job(Job(**{"trainer": "xgboost", "data": "a.parquet", **changes}))

"""An attempt after a loss that takes up what was binned before it ends in the model of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.faults.holds import hold_of
from benchmarks.invariance_cases import invariance_table
from shardfit import Cancellation, Job, TrainResult, kept_bins, kept_shards, resume_run, train
from shardfit.errors import RunCancelledError, WorkerError, WorkerLostError
from shardfit.events import BinsKept, BinsRejected, BinsTaken, Event, MetricsReported
from shardfit.kept_bins import NAME
from shardfit.run_record import record_of
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import CATEGORICAL, FEATURES
from tests.shardfit.worker_processes import LastWorkerKiller, start_server, training_on

TABLE, HELD_OUT = invariance_table(1_500), invariance_table(300, seed=1)
LOST_AFTER = 3


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """Start it while temporary files are where they always are: later tests use it, too."""
    start_server()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pq.write_table(TABLE, folder / "rows.parquet", row_group_size=400)
    pq.write_table(HELD_OUT, folder / "held_out.parquet")
    return folder


class Raises:
    """A callback that raises once after a round; not again once a file is there."""

    def __init__(self, file: Path, error: type[Exception]) -> None:
        self.file, self.error = file, error

    def __call__(self, environment: Any) -> None:
        if environment.iteration == LOST_AFTER and not self.file.exists():
            self.file.touch()
            raise self.error("training", "it is a test") if self.error is WorkerLostError else self.error("a test")


def job(data: Path, stage: Path, callback: Any = None, **changes: Any) -> Job:
    columns = {"features": FEATURES, "label": "delay", "categorical": CATEGORICAL, **changes.pop("columns", {})}
    params = {"num_iterations": 6, "num_leaves": 15, **changes.pop("params", {})}
    fields: dict[str, Any] = {
        "trainer": "lightgbm",
        "data": str(data / "rows.parquet"),
        "evals": {"held_out": str(data / "held_out.parquet")},
        "columns": columns,
        "params": params | ({"callbacks": [callback]} if callback else {}),
        "stage": str(stage),
        "engine": "inline",
        "checkpoint_every_rounds": 2,
        "keep_bins": "always",
    }
    return Job(**{**fields, **changes})


def files_of(result: TrainResult) -> dict[str, Any]:
    return dict(result.trainer.save(result.model))


def left_in(scratch: Path) -> list[str]:
    return [str(path) for path in scratch.glob(f"{NAME}*/*") if path.is_dir()]


def bins_of(events: list[Event]) -> Counter[tuple[str, int]]:
    return Counter(
        (event.name, event.attempt) for event in events if isinstance(event, BinsKept | BinsTaken | BinsRejected)
    )


CASES: dict[str, dict[str, Any]] = {
    "numbers": {},
    "no checkpoint": {"checkpoint_every_rounds": None, "checkpoint_every_seconds": None},
    "weights and bagging": {
        "columns": {"label": "late", "weight": "some_weight"},
        "params": {"objective": "binary", "bagging_fraction": 0.7, "bagging_freq": 1},
    },
    "classes": {"columns": {"label": "grade"}, "params": {"objective": "multiclass", "num_class": 3}},
    "queries": {"columns": {"label": "grade", "group": "query"}, "params": {"objective": "lambdarank"}},
    "initial scores": {"columns": {"base_margin": "margin"}},
    "initial scores, no checkpoint": {
        "columns": {"base_margin": "margin"},
        "checkpoint_every_rounds": None,
        "checkpoint_every_seconds": None,
    },
    "one machine, wide bins": {"params": {"objective": "regression_l1", "max_bin": 400}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_model_with_what_was_kept(data: Path, tmp_path: Path, scratch: Path, case: str) -> None:
    undisturbed = train(job(data, tmp_path / "stage", keep_bins="never", **CASES[case]))
    events: list[Event] = []
    lost = Raises(tmp_path / "lost", WorkerLostError)
    result = train(job(data, tmp_path / "stage", lost, **CASES[case]), observers=[events.append])
    assert result.attempts == 2
    assert bins_of(events) == {("BinsKept", 1): 2, ("BinsTaken", 2): 2}
    assert files_of(result) == files_of(undisturbed)
    assert all(coverage.exact and coverage.handed.rows for coverage in result.coverage.values())
    assert left_in(scratch) == []
    assert record_of(LocalStore(tmp_path / "stage"), result.run_id).bins == {"BinsKept": 2, "BinsTaken": 2}  # type: ignore[union-attr]
    assert result.plan.memory["kept bins"] == result.plan.memory.disk > 0


def test_damaged_bins_are_made_again_and_warned_of(data: Path, tmp_path: Path, scratch: Path) -> None:
    class Damages(Raises):
        def __call__(self, environment: Any) -> None:
            for path in scratch.rglob("data.bin"):
                path.write_bytes(path.read_bytes()[:-8])
            super().__call__(environment)

    events: list[Event] = []
    damaged = Damages(tmp_path / "lost", WorkerLostError)
    result = train(job(data, tmp_path / "stage", damaged), observers=[events.append])
    assert bins_of(events) == {("BinsKept", 1): 2, ("BinsRejected", 2): 2, ("BinsKept", 2): 2}
    assert [warning for warning in result.warnings if "bytes where" in warning]
    assert files_of(result) == files_of(train(job(data, tmp_path / "stage", keep_bins="never")))


@pytest.mark.parametrize(("keep_bins", "trainer"), [("auto", "lightgbm"), ("never", "lightgbm"), ("always", "xgboost")])
def test_nothing_is_kept_that_is_not_worth_it_or_not_wanted_or_cannot_be(
    data: Path, tmp_path: Path, scratch: Path, keep_bins: str, trainer: str
) -> None:
    events: list[Event] = []
    params = {"n_estimators": 2} if trainer == "xgboost" else {"num_iterations": 2}
    wanted = job(data, tmp_path / "stage", keep_bins=keep_bins).model_copy(
        update={"trainer": trainer, "params": params}
    )
    result = train(wanted, observers=[events.append])
    assert not bins_of(events)
    assert (result.plan.memory["kept bins"] > 0) == (keep_bins == "auto")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("share", "kept"), [(1, {("BinsKept", 1): 2}), (10**15, {})])
def test_where_nothing_is_said_what_is_quickly_written_is_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, kept: dict[tuple[str, int], int]
) -> None:
    monkeypatch.setattr(kept_shards, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(kept_shards, "QUICK_SHARE", share)
    monkeypatch.setattr(kept_shards, "is_ram_disk", lambda folder: False)
    events: list[Event] = []
    train(job(data, tmp_path / "stage", keep_bins="auto"), observers=[events.append])
    assert bins_of(events) == kept


def test_bins_that_vanish_while_they_are_taken_up_are_made_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked_and_gone(folder: Path) -> dict[str, Any]:
        facts = check(folder)
        (folder / "labels.npy").unlink()
        return facts

    check = kept_bins._checked
    monkeypatch.setattr(kept_bins, "_checked", checked_and_gone)
    events: list[Event] = []
    lost = Raises(tmp_path / "lost", WorkerLostError)
    result = train(job(data, tmp_path / "stage", lost), observers=[events.append])
    assert bins_of(events) == {("BinsKept", 1): 2, ("BinsRejected", 2): 2, ("BinsKept", 2): 2}
    assert files_of(result) == files_of(train(job(data, tmp_path / "stage", keep_bins="never")))


def test_a_run_that_has_no_place_to_keep_anything_says_so_and_goes_on(
    data: Path, tmp_path: Path, scratch: Path
) -> None:
    (scratch / f"{NAME}-{os.getuid()}").touch()
    result = train(job(data, tmp_path / "stage"))
    assert [warning for warning in result.warnings if "Worker 0" in warning and "File exists" in warning]


@pytest.mark.parametrize("ending", ["fails", "cancelled"])
def test_nothing_is_left_of_a_run_that(data: Path, tmp_path: Path, scratch: Path, ending: str) -> None:
    cancellation, seen = Cancellation(), []

    def cancel(event: Event) -> None:
        if isinstance(event, MetricsReported):
            seen.extend(left_in(scratch))
            if ending == "cancelled":
                cancellation.cancel()

    error = RunCancelledError if ending == "cancelled" else WorkerError
    callback = None if ending == "cancelled" else Raises(tmp_path / "failed", ZeroDivisionError)
    with pytest.raises(error):
        train(job(data, tmp_path / "stage", callback), observers=[cancel], cancellation=cancellation)
    assert seen
    assert left_in(scratch) == []


@pytest.mark.parametrize(
    ("left", "taken"), [(3, {("BinsKept", 1): 6, ("BinsTaken", 2): 6}), (2, {("BinsKept", 1): 6, ("BinsKept", 2): 4})]
)
def test_after_a_kill_the_same_world_takes_up_its_bins_and_another_does_not(
    data: Path, tmp_path: Path, scratch: Path, left: int, taken: dict[Any, int]
) -> None:
    held = hold_of("lightgbm", LOST_AFTER, tmp_path / "killed")
    with training_on(3) as engine:
        killer = LastWorkerKiller(engine, left, tmp_path / "killed", LOST_AFTER)
        wanted = job(data, tmp_path / "stage", held, engine="ray", workers=3, cpus_per_worker=1)
        result = train(wanted, observers=[killer])
    assert bins_of(killer.events) == taken
    assert files_of(result) == files_of(train(job(data, tmp_path / "stage", keep_bins="never")))
    assert left_in(scratch) == []


PROGRAM = """
import os, signal, sys
from pathlib import Path
from shardfit import train
from shardfit.events import MetricsReported
from tests.shardfit_lightgbm.test_kept_matrix import job

def kill(event):
    if isinstance(event, MetricsReported) and event.round == 3:
        print(event.run_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    train(job(Path(sys.argv[1]), Path(sys.argv[2])), observers=[kill])
"""


def test_a_run_that_is_resumed_on_the_same_machine_takes_up_its_bins(data: Path, tmp_path: Path, scratch: Path) -> None:
    stage = tmp_path / "stage"
    command = [sys.executable, "-c", PROGRAM, str(data), str(stage)]
    driver = subprocess.run(command, check=False, capture_output=True, text=True)
    run_id = driver.stdout.strip()
    assert left_in(scratch), driver.stderr
    events: list[Event] = []
    result = resume_run(run_id, str(stage), observers=[events.append])
    assert bins_of(events) == {("BinsTaken", 2): 2}
    assert files_of(result) == files_of(train(job(data, stage, keep_bins="never")))
    assert left_in(scratch) == []

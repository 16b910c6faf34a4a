"""P5 and P6: what goes wrong while workers run is named at once, leaves nothing behind, and is survived if possible."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from shardfit.connector import DataConnector
from shardfit.engines.machine import process_exists
from shardfit.engines.ray import RayEngine
from shardfit.errors import (
    ArtifactError,
    ChangedDataError,
    RunCancelledError,
    UnreadableSourceError,
    WorkerError,
    WorkerLostError,
)
from shardfit.events import CheckpointStored, Event, MetricsReported, Progress, WorkerLost
from shardfit.run_record import list_records
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from tests.end_to_end.fitting import failure, fitted, shardfit_threads
from tests.shardfit.worker_processes import ProcessEngine, training_on

TABLE = awkward_table(2_000)
ROUNDS = 8
GATE_ROUND = 5

# No run here takes more than a few seconds; one that waits for a worker that is gone would wait for minutes.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process of each worker that Ray started, in order; all must be gone when the test ends."""
    found: list[int] = []
    start = RayEngine.start

    def spy(self: RayEngine, *arguments: Any) -> Any:
        group = start(self, *arguments)
        described = [group.describe(rank) for rank in range(group.layout.workers)]
        found.extend(int(re.findall(r"pid (\d+)", text)[0]) for text in described)
        return group

    monkeypatch.setattr(RayEngine, "start", spy)
    yield found
    assert not [pid for pid in found if process_exists(pid)]


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """One worker is in this process; several are processes, which must be gone when the run ends."""
    if request.param == 1:
        yield 1
        return
    with training_on(request.param) as engine:
        yield request.param
        assert len(engine.pids) >= request.param
        assert not [pid for pid in engine.pids if process_exists(pid)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / f"part-{number}.parquet" for number in range(2)]
    for number, path in enumerate(paths):
        # Checksums tell altered values from others, where no compression does.
        options = {"row_group_size": 300, "use_dictionary": False, "write_page_checksum": True}
        pq.write_table(TABLE.slice(number * 1000, 1000), path, compression=["none", "snappy"][number], **options)
    return paths


def trees_of(booster: xgb.Booster) -> Any:
    return json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]


@pytest.fixture(scope="module")
def undisturbed() -> Any:
    return trees_of(fitted(DataConnector.from_arrow(TABLE), rounds=ROUNDS).get_booster())


class Gate(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Holds every worker before a round until a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        while epoch == GATE_ROUND and not self.file.exists():
            time.sleep(0.01)
        return False


def at_gate(act: Callable[[], object], heard: int = 0) -> Callable[[Event], None]:
    """Return an observer that acts once, when every round before the gate is done and a worker was heard to fit."""
    waited_for = {"rounds", "worker"}

    def watch(event: Event) -> None:
        if event.attempt != 1 or not waited_for:
            return
        if isinstance(event, MetricsReported) and event.round == GATE_ROUND - 1:
            waited_for.discard("rounds")
        if isinstance(event, Progress) and (event.worker, event.phase) == (heard, "fit"):
            waited_for.discard("worker")
        if not waited_for:
            act()

    return watch


# Data.


# The first file is not compressed, the second is.
@pytest.mark.parametrize(("workers", "number"), [(1, 0), (1, 1), (2, 1)], indirect=["workers"])
def test_a_corrupt_page_is_named_by_file_row_group_and_column(
    files: list[Path], number: int, tmp_path: Path, workers: int
) -> None:
    position = pq.read_schema(files[number]).get_field_index("normal")
    page = pq.read_metadata(files[number]).row_group(2).column(position)
    content = bytearray(files[number].read_bytes())
    middle = page.data_page_offset + page.total_compressed_size // 2
    for place in range(middle, middle + 16):
        content[place] ^= 0xFF
    files[number].write_bytes(content)
    data = DataConnector.from_parquet([str(path) for path in files])
    left = failure(data, tmp_path / "stage", UnreadableSourceError, workers=workers)
    for part in [str(files[number]), "row group 2", "column 'normal'"]:
        assert part in left.message
    assert left.record.status == "failed"


@pytest.mark.parametrize(
    ("workers", "moment", "change"),
    [
        (1, "PlanMade", "rewritten"),
        (1, "PlanMade", "deleted"),
        (1, "ProfileMade", "rewritten"),
        (1, "ProfileMade", "deleted"),
        (2, "PlanMade", "deleted"),
        (2, "ProfileMade", "rewritten"),
    ],
    indirect=["workers"],
)
def test_a_file_that_changes_is_named(
    files: list[Path], moment: str, change: str, tmp_path: Path, workers: int
) -> None:
    def alter(event: Event) -> None:
        if event.name == moment:
            files[1].unlink()
            if change == "rewritten":
                pq.write_table(TABLE.slice(0, 1000), files[1], row_group_size=300)

    data = DataConnector.from_parquet([str(path) for path in files])
    left = failure(data, tmp_path / "stage", ChangedDataError, (alter,), workers=workers)
    assert str(files[1]) in left.message
    assert ("found 'nothing'" in left.message) == (change == "deleted")
    assert left.record.status == "failed"


# The store.


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which a record has room and a model of many rounds has not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "shardfit-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# A checkpoint comes in the midst of a run; the model is published by the driver, whatever the engine.
@pytest.mark.parametrize(("workers", "every"), [(1, None), (1, 55), (2, 55)], indirect=["workers"])
def test_a_full_disk_is_said_and_nothing_half_written_is_seen(full_disk: Path, every: int | None, workers: int) -> None:
    data = DataConnector.from_arrow(TABLE)
    options: dict[str, Any] = {"rounds": 60, "checkpoint_every_rounds": every}
    left = failure(data, full_disk / "stage", ArtifactError, workers=workers, **options)
    assert "No space left" in left.message
    assert str(full_disk) in left.message
    assert left.record.status == "failed"
    assert left.artifacts == [f"run/{left.record.run_id}/record"]
    files = [path for path in (full_disk / "stage").rglob("*") if path.stat().st_size > 16_384]
    assert not files


# Ctrl-C.


@pytest.mark.parametrize(
    ("workers", "moment"), [(1, "profile"), (1, "ingest"), (1, "round"), (2, "round")], indirect=["workers"]
)
def test_an_interrupt_ends_the_run_as_cancelled(moment: str, tmp_path: Path, workers: int) -> None:
    def interrupt(event: Event) -> None:
        if moment == getattr(event, "phase", "round" if isinstance(event, MetricsReported) else ""):
            raise KeyboardInterrupt

    callbacks = [Gate(tmp_path / "never")] if workers > 1 else []
    options = {"workers": workers, "rounds": ROUNDS, "callbacks": callbacks}
    left = failure(DataConnector.from_arrow(TABLE), tmp_path / "stage", KeyboardInterrupt, (interrupt,), **options)
    assert left.record.status == "cancelled"


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_ctrl_c_in_a_terminal_ends_the_program_its_workers_and_the_run(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "ray":
        request.getfixturevalue("ray_address")
    command = [sys.executable, "-m", "tests.end_to_end.interrupted_program", engine, str(tmp_path)]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path.cwd()
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline().strip() == "waiting", program.communicate(timeout=10)[1]
        # Like a terminal, which tells every process of the group.
        os.killpg(program.pid, signal.SIGINT)
        _, errors = program.communicate(timeout=30)
    finally:
        program.kill()
        program.wait()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode
    pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
    assert len(pids) == (2 if engine == "ray" else 1)
    assert not [pid for pid in pids if process_exists(pid)]
    store = LocalStore(tmp_path / "stage")
    assert [record.status for record in list_records(store)] == ["cancelled"]
    assert not list(store.list("model/"))


def test_cancelling_from_another_thread_ends_workers_whatever_they_do(
    tmp_path: Path, four_processes: ProcessEngine
) -> None:
    cancelling: list[Any] = []

    def cancel() -> None:
        cancelling.append(threading.Thread(target=estimator.cancel))
        cancelling[0].start()

    estimator = XGBEstimator(
        n_estimators=ROUNDS,
        objective="binary:logistic",
        scaling_config=XGBScalingConfig(2, 1, engine="ray"),
        callbacks=[Gate(tmp_path / "never")],
        artifact_stage_location=str(tmp_path / "stage"),
        observers=[at_gate(cancel)],
    )
    with pytest.raises(RunCancelledError, match="the run was cancelled"):
        estimator.fit(DataConnector.from_arrow(TABLE), FEATURES, "late", categorical_cols=CATEGORICAL)
    cancelling[0].join()
    assert len(four_processes.pids) == 2
    assert not [pid for pid in four_processes.pids if process_exists(pid)]
    assert [record.status for record in list_records(LocalStore(tmp_path / "stage"))] == ["cancelled"]


# Code of the user's.


def objective_that_fails(margins: Any, data: xgb.DMatrix) -> Any:
    if xgb.collective.get_rank() == xgb.collective.get_world_size() - 1:
        raise ZeroDivisionError("the objective's own trouble")
    return margins - data.get_label(), np.ones_like(margins)


def metric_that_fails(predictions: Any, labels: Any, weights: Any) -> Any:
    if xgb.collective.get_rank() == xgb.collective.get_world_size() - 1:
        raise ZeroDivisionError("the metric's own trouble")
    return np.abs(predictions - labels), np.ones(len(labels))


class CallbackThatFails(xgb.callback.TrainingCallback):  # type: ignore[misc]
    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch == 2 and xgb.collective.get_rank() == xgb.collective.get_world_size() - 1:
            raise ZeroDivisionError("the callback's own trouble")
        return False


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("objective_that_fails", {"objective": objective_that_fails}),
        ("metric_that_fails", {"custom_metric": metric_that_fails}),
        ("after_iteration", {"callbacks": [CallbackThatFails()]}),
    ],
    ids=["objective", "metric", "callback"],
)
@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_an_exception_of_the_users_code_comes_with_its_worker_and_traceback(
    name: str, changes: dict[str, Any], tmp_path: Path, workers: int, undisturbed: Any
) -> None:
    data = DataConnector.from_arrow(TABLE)
    left = failure(data, tmp_path, WorkerError, workers=workers, evals={"eval": data}, rounds=ROUNDS, **changes)
    assert f"worker {workers - 1}" in left.message
    assert "ZeroDivisionError: the " in left.message
    assert f"in {name}" in left.message
    assert left.record.status == "failed"
    # The library is still of use in this process.
    again = fitted(data, rounds=ROUNDS, stage=tmp_path)
    assert trees_of(again.get_booster()) == undisturbed


# Workers.


@pytest.mark.parametrize(("killed", "every"), [(0, 2), (1, None)], ids=["first, checkpoints", "last, no checkpoint"])
def test_a_killed_process_costs_an_attempt_and_not_the_model(
    killed: int, every: int | None, tmp_path: Path, undisturbed: Any
) -> None:
    with training_on(2) as engine:
        check_killed(lambda: engine.pids[killed], killed, every, tmp_path, undisturbed)
        assert len(engine.pids) == 4
        assert not [pid for pid in engine.pids if process_exists(pid)]


@pytest.mark.ray
def test_a_killed_ray_worker_costs_an_attempt_and_not_the_model(
    tmp_path: Path, ray_address: str, pids: list[int], undisturbed: Any
) -> None:
    check_killed(lambda: pids[0], 0, 2, tmp_path, undisturbed)


def check_killed(pid: Callable[[], int], killed: int, every: int | None, tmp_path: Path, undisturbed: Any) -> None:
    gate = tmp_path / "gate"
    events: list[Event] = []
    attacked: list[int] = []

    def kill() -> None:
        attacked.append(pid())
        os.kill(attacked[0], signal.SIGKILL)
        gate.touch()

    estimator = fitted(
        DataConnector.from_arrow(TABLE),
        workers=2,
        rounds=ROUNDS,
        stage=tmp_path / "stage",
        callbacks=[Gate(gate)],
        checkpoint_every_rounds=every,
        observers=[events.append, at_gate(kill, heard=killed)],
    )
    assert trees_of(estimator.get_booster()) == undisturbed
    assert estimator.result.attempts == 2
    assert all(coverage.exact for coverage in estimator.result.coverage.values())
    (lost,) = [event for event in events if isinstance(event, WorkerLost)]
    assert f"worker {killed}" in lost.reason
    assert (lost.worker, lost.node) == (killed, estimator.result.plan.layout.slots[killed].node)
    assert (lost.pid, lost.phase, lost.cause) == (attacked[0], "fit", "killed")
    stored = [event.step for event in events if isinstance(event, CheckpointStored) and event.attempt == 1]
    rounds = [event.round for event in events if isinstance(event, MetricsReported) and event.attempt == 2]
    assert stored == ([2, 4] if every else [])
    assert rounds == list(range(stored[-1] if stored else 0, ROUNDS))
    assert not shardfit_threads()
    (record,) = list_records(LocalStore(tmp_path / "stage"))
    assert (record.status, record.attempts) == ("finished", 2)


def test_a_killed_worker_ends_the_run_when_no_attempt_is_left(tmp_path: Path, four_processes: ProcessEngine) -> None:
    kill = at_gate(lambda: os.kill(four_processes.pids[1], signal.SIGKILL))
    options = {"workers": 2, "rounds": ROUNDS, "callbacks": [Gate(tmp_path / "never")], "max_attempts": 1}
    left = failure(DataConnector.from_arrow(TABLE), tmp_path / "stage", WorkerLostError, (kill,), **options)
    assert "worker 1 on node" in left.message
    assert f"pid {four_processes.pids[1]}" in left.message
    assert "WorkerLost" in left.seen
    assert (left.record.status, left.record.attempts) == ("failed", 1)

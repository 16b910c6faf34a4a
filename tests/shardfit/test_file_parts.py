"""Files of checkpoints and models as paths: in parts to the driver, piece by piece to the store, never whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardfit.connector import DataConnector
from shardfit.engine import WorkerContext
from shardfit.engines.task_runner import TaskRunner
from shardfit.errors import ArtifactError
from shardfit.events import ArtifactStored, CheckpointFailed, CheckpointOffered, CheckpointStored, Event
from shardfit.file_parts import PART_BYTES, FilePart, PartSpool, SentInParts
from shardfit.run import load_checkpoint
from shardfit.scaling import WorkerSlot
from shardfit.stores.local import LocalStore
from shardfit.testing.mean_trainer import MeanModel, MeanTrainer
from shardfit.testing.trainer_runs import run_trainer

SLOT = WorkerSlot(rank=0, node="n", cpus=1)
DATA = DataConnector(pa.table({"x": [1.0, 2.0] * 50, "y": [1.0, 2.0] * 50}))
LARGE = 6 * PART_BYTES + 5


@dataclass(frozen=True)
class LargeFiles(MeanTrainer):
    """Offers a checkpoint twice whose large file is removed at once, and saves a model with a large file.

    Args:
        folder: Where it writes them.
    """

    folder: Path

    def run_worker(self, context: WorkerContext, *arguments: Any) -> Any:
        for step in (1, 2):
            path = self.write(f"state-{step}", step)
            context.offer_checkpoint(step, {"state": path, "small": b"s", "empty": self.write("empty", 0, 0)})
            path.unlink()
        return super().run_worker(context, *arguments)

    def save(self, model: MeanModel) -> Mapping[str, bytes | Path]:
        return {**super().save(model), "weights": self.write("weights", 7)}

    def write(self, name: str, value: int, size: int = LARGE) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            for start in range(0, size, 2**20):
                file.write(bytes([value]) * min(2**20, size - start))
        return path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, to see what is left."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def offered(worker: int, step: int, size: int, name: str = "f") -> CheckpointOffered:
    return CheckpointOffered(step=step, files={name: SentInParts(worker, size)})


def part(content: bytes, start: int, step: int = 1, worker: int = 0) -> FilePart:
    return FilePart(worker=worker, step=step, file="f", start=start, content=content)


def test_large_files_reach_the_store_and_are_never_whole_in_memory(tmp_path: Path, scratch: Path) -> None:
    trainer = LargeFiles(tmp_path)
    peaks = []
    tracemalloc.start()
    try:
        run = run_trainer(
            trainer,
            tmp_path / "stage",
            data=DATA,
            columns={"label": "y"},
            observers=[lambda event: peaks.append((type(event), tracemalloc.get_traced_memory()[1]))],
        )
    finally:
        tracemalloc.stop()
    assert dict(peaks)[ArtifactStored] < 4 * PART_BYTES
    store = LocalStore(tmp_path / "stage")
    (last,) = (event.artifact for event in run.of(CheckpointStored)[-1:])
    kept = {stored.name: stored for stored in store.manifest(last).files}
    assert kept["state"].sha256 == hashlib.sha256(bytes([2]) * LARGE).hexdigest()
    assert (kept["empty"].size, kept["small"].size) == (0, 1)
    model = {stored.name: stored for stored in store.manifest(f"model/{run.result.run_id}").files}
    assert model["weights"].sha256 == hashlib.sha256(bytes([7]) * LARGE).hexdigest()
    assert load_checkpoint(store, run.result.run_id).files["small"] == b"s"
    assert list(scratch.iterdir()) == []


def test_what_a_failed_run_has_received_is_removed(tmp_path: Path, scratch: Path) -> None:
    def refuse(event: Event) -> None:
        if isinstance(event, CheckpointStored):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trainer(LargeFiles(tmp_path), tmp_path / "stage", data=DATA, columns={"label": "y"}, observers=[refuse])
    assert list(scratch.iterdir()) == []


def test_no_more_than_a_few_parts_wait_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (12 * PART_BYTES))
    runner = TaskRunner(SLOT, 1, 1)
    task = threading.Thread(target=lambda: runner.run(offer, (tmp_path / "f",)))
    task.start()
    spool, whole, batch = PartSpool(), None, runner.next_events(5.0)
    while True:
        assert sum(isinstance(event, FilePart) for event in batch.events) <= 4
        for event in batch.events:
            if isinstance(event, FilePart):
                spool.take(event)
            elif isinstance(event, CheckpointOffered):
                whole = spool.files_of(event)["f"]
        if batch.last:
            break
        time.sleep(0.01)
        batch = runner.next_events(5.0)
    task.join()
    assert isinstance(whole, Path)
    assert whole.read_bytes() == b"x" * (12 * PART_BYTES)
    spool.close()


def offer(context: WorkerContext, path: Path) -> None:
    context.offer_checkpoint(3, {"f": path})


def test_a_part_that_is_lost_is_told_and_a_file_that_breaks_off_is_written_over(scratch: Path) -> None:
    spool = PartSpool()
    spool.take(part(b"abc", 0))
    with pytest.raises(ArtifactError, match="found 3 of 4 bytes"):
        spool.files_of(offered(0, 1, 4))
    spool.take(part(b"f", 5))
    with pytest.raises(ArtifactError, match="begins at byte 5 after 3"):
        spool.files_of(offered(0, 1, 4))
    with pytest.raises(ArtifactError, match="found 0 of 4 bytes"):
        spool.files_of(offered(1, 1, 4))
    for content, start in ((b"12", 0), (b"34", 2)):
        spool.take(part(content, start))
    (path,) = spool.files_of(offered(0, 1, 4)).values()
    assert isinstance(path, Path)
    assert path.read_bytes() == b"1234"
    spool.close()
    assert list(scratch.iterdir()) == []


def test_forgetting_a_checkpoint_keeps_the_parts_of_a_later_one(scratch: Path) -> None:
    spool = PartSpool()
    spool.take(part(b"old", 0, step=1))
    spool.take(part(b"new", 0, step=2, worker=1))
    spool.forget(1)
    with pytest.raises(ArtifactError):
        spool.files_of(offered(0, 1, 3))
    assert spool.files_of(offered(1, 2, 3))["f"].read_bytes() == b"new"  # type: ignore[union-attr]
    spool.close()


def test_a_full_disk_of_the_driver_costs_the_checkpoint_and_not_the_run(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **options: os.fspath(tmp_path / "there" / "is" / "none"))
    run_trainer(LargeFiles(tmp_path), tmp_path / "stage", data=DATA, columns={"label": "y"}, observers=[events.append])
    assert [event.step for event in events if isinstance(event, CheckpointFailed)]
    assert not [event for event in events if isinstance(event, CheckpointStored)]


def test_an_event_of_a_part_tells_its_size_only() -> None:
    assert part(b"abc", 8).to_dict()["content"] == 3
    assert "abc" not in repr(part(b"abc", 8))
    assert offered(0, 1, 9).to_dict()["files"] == {"f": 9}

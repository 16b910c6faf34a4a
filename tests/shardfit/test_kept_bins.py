"""What is kept of binned shards is whole or not there, within its budget, and gone when its run is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shardfit import DataConnector, kept_shards
from shardfit.binned_trainer import BinReference
from shardfit.casts import CategoryMap, ColumnCast
from shardfit.columns import ColumnRoles
from shardfit.engine import WorkerContext
from shardfit.errors import CacheError
from shardfit.kept_bins import NAME, BinKeeping, KeptBins, forget_bins
from shardfit.kept_shards import shard_key
from shardfit.local_disk import own_folder
from shardfit.matrix_reader import MatrixReader, MatrixSpec
from shardfit.registry import default_registry
from shardfit.scaling import WorkerSlot
from shardfit.shard_plan import FragmentSlice, Shard
from shardfit.shard_reader import ShardReader
from shardfit.source import Fragment

KEEPING = BinKeeping("run-1", {"train": "digest"}, "driver")
CONTENT = b"bins" * 1000


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return own_folder(NAME)


@pytest.fixture
def kept() -> Iterator[KeptBins]:
    bins = KeptBins(KEEPING)
    yield bins
    bins.close()


def write(folder: Path) -> None:
    (folder / "data.bin").write_bytes(CONTENT)


def disk_of(size: int, root: Path) -> Callable[[Path], SimpleNamespace]:
    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(
            free=size - sum(file.stat().st_blocks * 512 for file in root.rglob("*") if file.is_file())
        )

    return usage


def test_what_is_kept_is_taken_up_as_it_was(kept: KeptBins, root: Path) -> None:
    assert kept.take("key") is None
    assert kept.keep("key", 5_000, write, {"rows": 3}) == len(CONTENT)
    found = KeptBins(KEEPING).take("key")
    assert found is not None
    assert ((found[0] / "data.bin").read_bytes(), found[1]) == (CONTENT, {"rows": 3})
    assert oct(root.stat().st_mode & 0o777) == "0o700"


def test_what_a_peer_has_just_renamed_is_passed_over(
    kept: KeptBins, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = root / "run-1" / "another" / ".making"
    making.mkdir(parents=True)
    scandir = os.scandir

    def without_it(path: Any = ".") -> Any:
        # It was listed, and is gone.
        if Path(path) == making:
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_it)
    assert kept.keep("key", 5_000, write, {"rows": 3}) == len(CONTENT)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "data.bin").write_bytes(CONTENT[:-1]), "has 3,999 bytes where 4,000 were written"),
        (lambda folder: (folder / "data.bin").write_bytes(b"x" + CONTENT[1:]), "another digest"),
        (lambda folder: (folder / "data.bin").unlink(), "are not those of its manifest"),
        (lambda folder: (folder / "more.bin").touch(), "are not those of its manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest has another digest"),
    ],
)
def test_what_is_damaged_is_not_taken_up(kept: KeptBins, damage: Callable[[Path], Any], told: str, root: Path) -> None:
    kept.keep("key", 5_000, write, {})
    damage(next(root.glob("*/*/key")))
    with pytest.raises(CacheError, match=told):
        kept.take("key")


def test_what_breaks_off_while_it_is_written_leaves_nothing(kept: KeptBins, root: Path) -> None:
    def breaks_off(folder: Path) -> None:
        write(folder)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        kept.keep("key", 5_000, breaks_off, {})
    assert kept.take("key") is None
    assert not [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]


def test_no_more_than_half_of_the_disk_is_taken(kept: KeptBins, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_of(30_000, root))
    kept.keep("first", 5_000, write, {})
    kept.keep("second", 5_000, write, {})
    with pytest.raises(CacheError, match=r"keeping 8,000 bytes of bins .* half of what the disk has is 15,000"):
        kept.keep("third", 8_000, write, {})
    assert kept.take("third") is None


def test_left_overs_of_dead_runs_go_and_those_of_the_living_stay(kept: KeptBins, root: Path) -> None:
    kept.keep("key", 5_000, write, {})
    other = KeptBins(replace(KEEPING, run_id="run-2"))
    assert sorted(folder.name for folder in root.iterdir() if folder.is_dir()) == ["run-1", "run-2"]
    other.keep("key", 5_000, write, {})
    other.close()
    # As a process that is killed: nothing is cleaned up, and its lock is free. Its run may go on in a moment.
    KeptBins(KEEPING).close()
    KeptBins(replace(KEEPING, run_id="run-2")).close()
    assert not (root / "run-2" / "left").exists()
    KeptBins(KEEPING).close()
    assert (root / "run-2" / "left").exists()
    os.utime(root / "run-2" / "left", (0, 0))
    KeptBins(KEEPING).close()
    assert [folder.name for folder in root.iterdir() if folder.is_dir()] == ["run-1"]


def test_what_is_left_goes_at_once_where_its_room_is_needed(
    kept: KeptBins, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = KeptBins(replace(KEEPING, run_id="run-2"))
    other.keep("key", 5_000, write, {})
    other.close()
    monkeypatch.setattr(shutil, "disk_usage", disk_of(16_000, root))
    kept.keep("key", 7_000, write, {})
    assert [folder.name for folder in root.iterdir() if folder.is_dir()] == ["run-1"]


def test_shards_of_another_world_go_when_their_run_has_a_new_one(kept: KeptBins) -> None:
    kept.keep("key", 5_000, write, {})
    resized = KeptBins(replace(KEEPING, plans={"train": "another"}))
    assert resized.take("key") is None
    resized.close()
    assert KeptBins(KEEPING).take("key") is None


def test_when_the_run_is_over_its_driver_removes_what_is_left(kept: KeptBins, root: Path) -> None:
    kept.keep("key", 5_000, write, {})
    forget_bins("../run-1")
    assert (root / "run-1").is_dir()
    forget_bins("run-1")
    assert not (root / "run-1").exists()


@pytest.mark.parametrize("kind", ["open", "link"])
def test_a_folder_that_others_can_reach_is_not_used(root: Path, kind: str) -> None:
    root.chmod(0o777)
    if kind == "link":
        root.rename(root.with_name("elsewhere"))
        root.symlink_to(root.with_name("elsewhere"))
    with pytest.raises(PermissionError, match="another user's, a link, or open to others"):
        KeptBins(KEEPING)


ROLES = ColumnRoles(("a", "b"), ("y",), categorical=("b",))
CASTS = tuple(ColumnCast(name, "float", "number") for name in ("a", "b", "y"))
SPEC = MatrixSpec(ROLES, CASTS, {"b": CategoryMap("b", ("x", "y"))}, 255)
FRAGMENT = Fragment("file:rows.parquet", 0, 100, version="1")
POINTS = (np.arange(3, dtype=np.float32), np.arange(2, dtype=np.float32))


def key(**changes: Any) -> str:
    fragment = replace(FRAGMENT, **changes.pop("fragment", {}))
    piece = replace(FragmentSlice(fragment, 0, 10, 20, 10), **changes.pop("piece", {}))
    shard = ShardReader("train", SimpleNamespace(), Shard(1, (piece,), 100), changes.pop("columns", ROLES.all), 10)  # type: ignore[arg-type]
    spec = replace(SPEC, **changes.pop("spec", {}))
    points = changes.pop("points", POINTS)
    slot = WorkerSlot(changes.pop("rank", 1), "node", 1)
    context = WorkerContext(slot.rank, changes.pop("world", 2), slot)
    dataset, depends = changes.pop("dataset", "train"), changes.pop("depends", {"max_bin": 255})
    keeping = BinKeeping("run", {"train": "plan", "held": "plan"}, "driver")
    keeping = replace(keeping, **changes.pop("keeping", {}))
    assert not changes
    reference = BinReference(spec, points, {"train": (1, 2)})
    return shard_key(keeping, context, dataset, MatrixReader(shard, spec), reference, depends)


@pytest.mark.parametrize(
    "changes",
    [
        {"fragment": {"version": "2"}},
        {"fragment": {"uri": "file:others.parquet"}},
        {"fragment": {"index": 1}},
        {"fragment": {"rows": 101}},
        {"fragment": {"position": (8,)}},
        {"piece": {"start": 11}},
        {"piece": {"stop": 21}},
        {"piece": {"first_row": 11}},
        {"columns": ("a", "b", "y", "w")},
        {"spec": {"missing": -999.0}},
        {"spec": {"max_bin": 254}},
        {"spec": {"categories": {"b": CategoryMap("b", ("x", "z"))}}},
        {"spec": {"casts": (*CASTS[:2], ColumnCast("y", "date32", "date"))}},
        {"spec": {"roles": replace(ROLES, weight="w")}},
        {"points": (POINTS[0] + np.float32(1e-6), POINTS[1])},
        {"points": (np.arange(4, dtype=np.float32), POINTS[1][1:])},
        {"rank": 0},
        {"world": 3},
        {"dataset": "held"},
        {"depends": {"max_bin": 255, "use_missing": False}},
        {"keeping": {"plans": {"train": "another"}}},
    ],
    ids=repr,
)
def test_whatever_bins_follow_from_changes_their_key(changes: dict[str, Any]) -> None:
    assert key() == key()
    assert key(**changes) != key()


def test_versions_and_byte_order_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(kept_shards, "installed_versions", lambda: {"lightgbm": "0"})
    older = key()
    monkeypatch.setattr(sys, "byteorder", "big")
    assert len({before, older, key()}) == 3


def test_data_that_cannot_be_recognised_is_kept_for_one_driver_only() -> None:
    later = {"driver": "another"}
    assert key(keeping=later) == key()
    assert key(keeping=later, fragment={"version": ""}) != key(fragment={"version": ""})


def test_another_way_of_reading_the_same_files_is_another_plan(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1,2\n-,3\n")

    def place(driver: str = "driver", **options: Any) -> str:
        connector = DataConnector.from_csv(str(tmp_path / "rows.csv"), **options)
        source = connector.resolve(default_registry())
        plan: Any = SimpleNamespace(shard_plan=SimpleNamespace(digest="d"), source=source, fragments=source.fragments())
        return BinKeeping.of("run", {"train": plan}, driver, always=False).place

    assert place(null_values=["-"]) == place("another", null_values=["-"])
    assert place(null_values=["-"]) != place()


def test_the_last_process_that_holds_a_run_removes_what_a_killed_one_has_left(root: Path) -> None:
    one, other = KeptBins(KEEPING), KeptBins(KEEPING)
    half_written = next(path for path in (root / "run-1").iterdir() if path.is_dir()) / ".half"
    half_written.mkdir()
    write(half_written)
    one.close(keep=False)
    assert half_written.exists()
    other.close(keep=False)
    assert not (root / "run-1").exists()

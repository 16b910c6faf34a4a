"""The disk cache: within its budget, its files as large as planned, and gone however its process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from shardfit.errors import CacheError
from shardfit.local_disk import scratch_folder
from shardfit_xgboost.disk_cache import PREFIX, DiskCache, remove_remnants
from shardfit_xgboost.page_bytes import page_bytes

from .test_external_memory import NUMBERS, numbers, trained

PROGRAM = """
import sys, time
from shardfit_xgboost.disk_cache import DiskCache
cache = DiskCache.open(sys.argv[1])
(cache.path / "pages").write_bytes(bytes(1000))
print(cache.path, flush=True)
time.sleep(100)
"""


def wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + 60
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not path.exists()


def test_it_is_a_folder_of_its_own_that_is_gone_afterwards(tmp_path: Path) -> None:
    with DiskCache.open(str(tmp_path / "new" / "folder")) as cache, DiskCache.open(str(cache.path.parent)) as other:
        assert cache.path != other.path
        (cache.path / "pages").write_bytes(bytes(1000))
        assert cache.used == 1000
        assert oct(cache.path.stat().st_mode & 0o777) == "0o700"
    cache.close()
    assert list(cache.path.parent.iterdir()) == []


def test_it_is_gone_when_its_process_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert path.parent == tmp_path
    assert path.is_dir()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_gone(path)


def test_remnants_of_dead_processes_are_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    # What a machine that lost its power leaves: nobody was there to remove it.
    remnant = tmp_path / f"{PREFIX}remnant"
    remnant.mkdir()
    (remnant / "lock").touch()
    (remnant / "pages").write_bytes(bytes(10))
    someone_elses = tmp_path / "shardfit-notes"
    someone_elses.mkdir()
    with DiskCache.open(str(tmp_path)) as living:
        assert not remnant.exists()
        assert remove_remnants(tmp_path) == 0
        assert living.path.is_dir()
        assert someone_elses.is_dir()


def test_room_is_checked_before_it_is_used(tmp_path: Path) -> None:
    with DiskCache.open(str(tmp_path), budget=1000) as cache:
        (cache.path / "pages").write_bytes(bytes(600))
        cache.check_room(400)
        with pytest.raises(CacheError, match="its budget is"):
            cache.check_room(401)
    with DiskCache.open(str(tmp_path)) as cache, pytest.raises(CacheError, match="the disk is full"):
        cache.check_room(2**60)


def test_the_default_folder_is_on_a_disk_where_there_is_one() -> None:
    assert scratch_folder().is_dir()


def pages(folder: Path, features: int, rows: int, max_bin: int, missing: float) -> float:
    """Bytes of a page that XGBoost writes."""
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, features)).astype(np.float32)
    values[random.random(values.shape) < missing] = np.nan

    class Two(xgb.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.done = 0
            super().__init__(cache_prefix=str(folder / "pages"))

        def reset(self) -> None:
            self.done = 0

        def next(self, input_data: Any) -> bool:
            self.done += 1
            if self.done <= 2:
                input_data(data=values, label=np.zeros(rows, dtype=np.float32))
            return self.done <= 2

    cuts = np.sort(random.normal(size=(max_bin, features)).astype(np.float32), axis=0)
    reference = xgb.QuantileDMatrix(cuts, max_bin=max_bin)
    matrix = xgb.ExtMemQuantileDMatrix(Two(), ref=reference, max_bin=max_bin)
    size = sum(entry.stat().st_size for entry in os.scandir(folder)) / 2
    del matrix
    return size


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("features", "rows", "max_bin"), [(3, 20_000, 64), (300, 100, 256), (20, 5_000, 600)])
def test_pages_are_not_larger_than_planned(
    tmp_path: Path, features: int, rows: int, max_bin: int, missing: float
) -> None:
    planned = page_bytes(rows, features, max_bin, gapless=not missing)
    found = pages(tmp_path, features, rows, max_bin, missing)
    assert found <= planned
    if not missing:
        assert planned <= 1.2 * found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a disk of 6 MiB needs Linux and root: run as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this system mounts nothing ({mounted.stderr.strip()}): use a privileged container")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_during_training_is_an_error_and_is_left_empty(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardfit_xgboost import storage

    monkeypatch.setattr(storage, "_PAGE_BYTES", (2**20,))
    with pytest.raises(CacheError, match="the disk is full"):
        trained(numbers(1_000_000), roles=NUMBERS, params={"storage": "disk", "cache_folder": str(small_disk)})
    assert list(small_disk.iterdir()) == []

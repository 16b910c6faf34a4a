"""A folder on the local disk for what does not fit into memory: within a budget, and gone when its process is."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import xgboost as xgb

from shardfit.errors import CacheError
from shardfit.local_disk import scratch_folder

PREFIX = "shardfit-cache-"
_LOCK = "lock"
# What must stay free beside what is about to be written, since others write to the same disk.
_MARGIN = 4 * 2**20
# Removes the folder when this process is gone, however it went: the pipe that it reads from closes then.
_GUARD = 'read -r _; rm -rf -- "$1"'


class DiskCache:
    """One worker's folder for one dataset. A context manager: leaving it removes the folder.

    The folder is removed when the process ends, too, even if it is killed: a small process waits for that. What a lost
    machine leaves behind is removed by the next cache that is made in the same place: its lock is free then.

    Args:
        path: The folder; made by `open`.
        budget: Most bytes that it may hold, or None for what the disk has.
        lock: A file of the folder, open and locked; free for others once this process is gone.
    """

    def __init__(self, path: Path, budget: int | None, lock: Any) -> None:
        self.path = path
        self.budget = budget
        self._lock = lock
        self._guard = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _GUARD, "sh", os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @classmethod
    def open(cls, folder: str | None, budget: int | None = None) -> DiskCache:
        """Return a new, empty cache; remnants of dead processes beside it are removed first.

        Args:
            folder: Where it is made; None for this machine's folder of temporary files.
            budget: Most bytes that it may hold, or None for what the disk has.

        Raises:
            CacheError: The folder cannot be made.
        """
        base = Path(folder) if folder is not None else scratch_folder()
        try:
            base.mkdir(parents=True, exist_ok=True)
            remove_remnants(base)
            # Only under its final name is it looked at by others, and then it is locked already.
            made = Path(tempfile.mkdtemp(prefix=".shardfit-making-", dir=base))
            lock = (made / _LOCK).open("w")
            _take_lock(lock)
            path = base / f"{PREFIX}{made.name.rpartition('-')[2]}"
            made.rename(path)
        except OSError as error:
            raise CacheError(
                f"making a disk cache in {os.fspath(base)!r}", _reason(error), "Set cache_folder to a local disk."
            ) from error
        return cls(path, budget, lock)

    def prefix(self, name: str) -> str:
        """Return what the paths of a dataset's files begin with."""
        return os.fspath(self.path / name)

    @property
    def used(self) -> int:
        """Bytes that the folder holds."""
        with suppress(FileNotFoundError):
            return sum(entry.stat().st_size for entry in os.scandir(self.path))
        return 0

    def check_room(self, size: int) -> None:
        """Check that `size` bytes more may be written. Called before each write, which libraries fail badly at.

        Raises:
            CacheError: The budget or the disk has not as many left, or the folder is gone.
        """
        self.check_there()
        used = self.used
        asked = f"writing {_mib(size)} more to the disk cache {os.fspath(self.path)!r}, which holds {_mib(used)}"
        if self.budget is not None and used + size > self.budget:
            raise CacheError(
                asked, f"its budget is {_mib(self.budget)}", "Raise cache_budget, or use more workers or fewer columns."
            )
        if (free := shutil.disk_usage(self.path).free) < size + _MARGIN:
            raise CacheError(
                asked,
                f"the disk is full: {_mib(free)} are free",
                "Make room, set cache_folder to another disk, or use more workers.",
            )

    def check_there(self) -> None:
        """Check that nobody has removed the folder.

        Raises:
            CacheError: Somebody has.
        """
        if not (self.path / _LOCK).exists():
            raise CacheError(
                f"using the disk cache {os.fspath(self.path)!r}",
                "the folder was removed while it was used",
                "Train again; keep cleaners of temporary files away, or set cache_folder to another place.",
            )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in the cache's words what the library says when it cannot use its files.

        Raises:
            CacheError: The folder is gone, or the library named one of its files.
        """
        try:
            yield
        except xgb.core.XGBoostError as error:
            self.check_there()
            if os.fspath(self.path) not in str(error):
                raise
            what = str(error).partition("Stack trace:")[0].strip()
            raise CacheError(f"using the disk cache {os.fspath(self.path)!r}", what, "Train again.") from error

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
            self._guard.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_remnants(base: Path) -> int:
    """Remove the caches in `base` whose process is gone, and return how many.

    Args:
        base: A folder of caches; others' files in it are left alone.
    """
    removed = 0
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError), (path / _LOCK).open("r+") as lock:
            # Raises while the process lives.
            _take_lock(lock)
            shutil.rmtree(path)
            removed += 1
    return removed


def _take_lock(file: Any) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _reason(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, '')} {error.strerror or error}".strip()


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

"""Binned shards on the local disk, so that an attempt after a loss takes up what the one before has binned.

They lie in `<scratch folder>/shardfit-bins-<user>/<run>/<shard plans>/<key>/`: what the trainer has written, and a
manifest, which comes last. A worker holds the folder of its run with a shared lock for as long as it lives. Whoever
comes next marks the folders of other runs that nobody holds, and removes those that are marked for longer than a run
waits for its next attempt, or that take the room it needs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shardfit.errors import CacheError
from shardfit.local_disk import own_folder, own_path
from shardfit.stores.files import locked

if TYPE_CHECKING:
    from shardfit.run_plan import DatasetPlan

NAME = "shardfit-bins"
# A run may wait for ten minutes for its next attempt.
LEFT_SECONDS = 900.0
_LEFT = "left"
_MANIFEST = "manifest.json"
_RESERVED = "reserved"


@dataclass(frozen=True)
class BinKeeping:
    """For whom workers keep what they have binned. Made for each attempt, on the driver; sent to every worker.

    Args:
        run_id: Bins are kept for later attempts of this run only.
        plans: Dataset name -> digest of its shard plan and of how its source reads.
        driver: Drawn by each driver. Data that cannot be recognised again is the same for one driver only.
        always: Whether also what takes little time to bin is kept.
    """

    run_id: str
    plans: Mapping[str, str]
    driver: str
    always: bool = False

    @classmethod
    def of(cls, run_id: str, datasets: Mapping[str, DatasetPlan], driver: str, *, always: bool) -> Self:
        """Return for whom an attempt keeps bins.

        Args:
            run_id: Of the run.
            datasets: By name.
            driver: Drawn by this driver.
            always: Whether also what takes little time to bin is kept.
        """
        plans = {name: f"{plan.shard_plan.digest} {_source_digest(plan, driver)}" for name, plan in datasets.items()}
        return cls(run_id, plans, driver, always)

    @cached_property
    def place(self) -> str:
        """Name of the folder for these shard plans."""
        return hashlib.sha256(json.dumps(dict(self.plans), sort_keys=True).encode()).hexdigest()[:32]


class KeptBins:
    """What this machine keeps for a run, held by this process until `close`.

    Args:
        keeping: For whom.

    Raises:
        OSError: There is no place for it.
    """

    def __init__(self, keeping: BinKeeping) -> None:
        self._root = own_folder(NAME)
        self._run = folder_of(self._root, keeping.run_id)
        self._lock = _hold(self._run)
        (self._run / _LEFT).unlink(missing_ok=True)
        remove_left(self._root)
        # Shards of another world, which nobody has any more.
        for folder in _folders(self._run):
            if folder.name != keeping.place:
                shutil.rmtree(folder, ignore_errors=True)
        self._place = self._run / keeping.place
        self._place.mkdir(mode=0o700, exist_ok=True)

    def take(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """Return the folder that is kept under `key` and the facts with it; None where there is none.

        Raises:
            CacheError: It is not as it was written.
        """
        folder = self._place / key
        return (folder, _checked(folder)) if folder.is_dir() else None

    def keep(self, key: str, needed: int, write: Callable[[Path], None], facts: Mapping[str, Any]) -> int:
        """Keep what `write` writes into a folder, as a whole or not at all; return its bytes.

        Half of what is free, and of what is kept there already, is the most that all runs together may take.

        Args:
            key: Names it.
            needed: About how many bytes it is.
            write: Called with an empty folder.
            facts: Plain values that `take` returns.

        Raises:
            CacheError: It does not fit.
            OSError: It cannot be written.
        """
        making = self._place / f".{uuid.uuid4().hex}"
        making.mkdir(mode=0o700)
        try:
            self._reserve(making / _RESERVED, needed)
            write(making)
            (making / _RESERVED).unlink()
            files = {path.name: (path.stat().st_size, _sha256(path)) for path in sorted(making.iterdir())}
            # Nothing waits for the disk: what a machine that lost its power had not yet written fails its digest.
            content = json.dumps({"files": files, "facts": dict(facts)})
            (making / _MANIFEST).write_text(f"{_sha256_of(content)}\n{content}")
            making.rename(self._place / key)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return sum(size for size, _ in files.values())

    def remove(self, key: str) -> None:
        """Remove what is kept under `key`, if anything is."""
        shutil.rmtree(self._place / key, ignore_errors=True)

    def close(self, *, keep: bool = True) -> None:
        """Let go of it.

        Args:
            keep: Whether what others have left half-written stays, too; else the last process to hold it removes all.
        """
        with suppress(OSError):
            if not keep:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self._run, ignore_errors=True)
        for folder in (self._place, self._run):
            with suppress(OSError):
                folder.rmdir()
        os.close(self._lock)

    def _reserve(self, path: Path, needed: int) -> None:
        """Make an empty file of the size needed, so that every process counts it, unless it does not fit."""
        with locked(self._root / ".lock"):
            promised, budget = self._room()
            if promised + needed > budget:
                remove_left(self._root, 0.0)
                promised, budget = self._room()
            if promised + needed > budget:
                raise CacheError(
                    f"keeping {needed:,} bytes of bins in {os.fspath(self._root)!r}",
                    f"{promised:,} bytes are kept there, and half of what the disk has is {budget:,}",
                    "They are binned again after a loss.",
                )
            with path.open("xb") as file:
                file.truncate(needed)

    def _room(self) -> tuple[int, int]:
        """Return the bytes that all runs have written or reserved, and how many they may."""
        sizes = list(_sizes(self._root))
        written = sum(size.st_blocks * 512 for size in sizes)
        return sum(size.st_size for size in sizes), (shutil.disk_usage(self._root).free + written) // 2


def _source_digest(plan: DatasetPlan, driver: str) -> str:
    """Return a digest of how a source reads, its options included: two ways of reading a file give other values."""
    # Those of one driver are the same ones, and what is in memory would take long to look through.
    if not all(fragment.version for fragment in plan.fragments):
        return driver
    try:
        return hashlib.sha256(pickle.dumps(plan.source)).hexdigest()
    except (pickle.PicklingError, AttributeError, TypeError):
        return driver


def remove_left(root: Path, after_seconds: float = LEFT_SECONDS) -> None:
    """Remove what runs have left behind that have no process here any more.

    Args:
        root: Where runs keep their bins.
        after_seconds: For how long they must have been seen without one; the first to see it leaves a mark.
    """
    for folder in _folders(root):
        mark = folder / _LEFT
        with suppress(OSError), _unheld(folder):
            if not mark.exists():
                mark.touch()
            if time.time() - mark.stat().st_mtime >= after_seconds:
                shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what is left on this machine, if anything is. Called by every worker that may keep bins."""
    if own_path(NAME).is_dir():
        remove_left(own_folder(NAME))


def anything_kept(run_id: str) -> bool:
    """Return whether this machine keeps anything for a run."""
    return folder_of(own_path(NAME), run_id).is_dir()


def forget_bins(run_id: str) -> None:
    """Remove what this machine keeps for a run, whoever holds it. Called on the driver, when the run is over."""
    with suppress(OSError):
        if anything_kept(run_id):
            shutil.rmtree(folder_of(own_folder(NAME), run_id), ignore_errors=True)


def folder_of(root: Path, run_id: str) -> Path:
    """Return the folder of a run.

    Raises:
        CacheError: Its identifier is no name of a folder.
    """
    if run_id in ("", ".", "..") or Path(run_id).name != run_id:
        raise CacheError(f"keeping bins of run {run_id!r}", "its identifier is no name of a folder")
    return root / run_id


@contextmanager
def _unheld(folder: Path) -> Iterator[None]:
    """Hold a folder that nobody else does.

    Raises:
        OSError: Somebody does, or it is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _hold(folder: Path) -> int:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Another process may come between making it and locking it, and remove it.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                    return descriptor
            os.close(descriptor)


def _checked(folder: Path) -> dict[str, Any]:
    asked = f"taking up the bins in {os.fspath(folder)!r}"
    try:
        digest, _, content = (folder / _MANIFEST).read_text().partition("\n")
        if digest != _sha256_of(content):
            raise CacheError(asked, "its manifest has another digest than when it was written")
        manifest = json.loads(content)
        files, facts = manifest["files"], dict(manifest["facts"])
        if sorted(path.name for path in folder.iterdir()) != sorted([*files, _MANIFEST]):
            raise CacheError(asked, "its files are not those of its manifest")
        for name, (size, digest) in files.items():
            if (found := (folder / name).stat().st_size) != size:
                raise CacheError(asked, f"{name!r} has {found:,} bytes where {size:,} were written")
            if _sha256(folder / name) != digest:
                raise CacheError(asked, f"{name!r} has another digest than when it was written")
    except CacheError:
        raise
    except (OSError, ValueError) as error:
        raise CacheError(asked, f"it cannot be read: {error!r}") from error
    return facts


def _sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _sizes(root: Path) -> Iterator[os.stat_result]:
    # Peers rename and remove folders meanwhile: `os.walk` passes over what is gone, where a glob of `Path` raises.
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):
                yield Path(folder, name).stat()

"""Rows that were read once from a remote store, kept on local disk as Arrow IPC for the passes that follow."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.ipc

from shardfit.stores.files import locked, remove_unlocked, staging_folder

logger = logging.getLogger(__name__)

_ROOM_BESIDE_BATCHES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where a node keeps rows, and how many bytes of them; pickled to workers.

    Args:
        folder: Shared by all processes of a node; None for one below the node's folder of temporary files.
        budget_bytes: Most bytes of all runs together on a node; None for half of what is free there.
    """

    folder: str | None = None
    budget_bytes: int | None = None

    @property
    def root(self) -> Path:
        """The folder on this machine."""
        if self.folder is not None:
            return Path(self.folder).expanduser()
        return Path(tempfile.gettempdir()) / f"shardfit-spool-{os.getuid()}"


class Spool:
    """The rows that one process keeps for one run. Thread-safe; other processes count in the budget.

    The folder is locked for as long as the process lives: whoever comes next removes those that nobody locks.

    Args:
        settings: Where, and how much.
    """

    def __init__(self, settings: SpoolSettings) -> None:
        self._settings = settings
        self._root = settings.root
        self._stack = ExitStack()
        self._told = False
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(settings)
        remove_abandoned(self._root)
        self.folder = self._stack.enter_context(staging_folder(self._root))

    def close(self) -> None:
        """Remove the folder. Batches that are still in use stay readable until they go."""
        self._stack.close()

    def read(self, key: str, rows: int, batches: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        """Yield the batches kept under `key`; where there are none, those of `batches`, which are kept if they fit.

        Args:
            key: Names a file.
            rows: Of all batches together.
            batches: Reads them.
        """
        path = self.folder / key
        return mapped_batches(path) if path.exists() else self._keep(path, rows, batches())

    def _keep(self, path: Path, rows: int, batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
        writer: _Writer | None = None
        first = True
        try:
            for batch in batches:
                if first:
                    writer, first = self._open(path, batch, rows), False
                if writer is not None and not writer.write(batch):
                    self._give_up(writer)
                    writer = None
                yield batch
            if writer is not None:
                if writer.finish():
                    writer = None
                else:
                    self._give_up(writer)
        finally:
            # Rows of a pass that was given up are not all of them.
            if writer is not None:
                writer.drop()

    def _open(self, path: Path, first: pa.RecordBatch, rows: int) -> _Writer | None:
        needed = int(first.nbytes / max(first.num_rows, 1) * rows * 1.05) + _ROOM_BESIDE_BATCHES
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            if self._reserve(temporary, needed):
                return _Writer(temporary, path, needed, first.schema)
        except OSError as error:
            logger.warning("rows are not kept in %s: %s", self.folder, error)
            return None
        self._tell(needed)
        return None

    def _reserve(self, path: Path, needed: int) -> bool:
        """Make an empty file of the size needed, so that every process counts it, unless it does not fit."""
        with locked(self._root / ".lock"):
            sizes = [file.stat() for file in _files(self._root)]
            promised = sum(size.st_size for size in sizes)
            written = sum(size.st_blocks * 512 for size in sizes)
            free = shutil.disk_usage(self._root).free + written
            budget = free // 2 if self._settings.budget_bytes is None else self._settings.budget_bytes
            if promised + needed > min(budget, free):
                return False
            with path.open("xb") as file:
                file.truncate(needed)
            return True

    def _give_up(self, writer: _Writer) -> None:
        writer.drop()
        self._tell(writer.room)

    def _tell(self, needed: int) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "%s more bytes of rows do not fit on local disk in %s: they are read again at each pass",
                f"{needed:,}",
                self._root,
            )


class _Writer:
    """Writes one file of batches within the room reserved for it."""

    def __init__(self, temporary: Path, path: Path, room: int, schema: pa.Schema) -> None:
        self.room = room
        self._temporary, self._path = temporary, path
        self._file = temporary.open("r+b")
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, batch: pa.RecordBatch) -> bool:
        """Write a batch; return whether it fitted."""
        try:
            if self._file.tell() + pa.ipc.get_record_batch_size(batch) + _ROOM_BESIDE_BATCHES // 2 > self.room:
                return False
            self._stream.write_batch(batch)
        except OSError as error:
            logger.warning("rows are not kept in %s: %s", self._temporary.parent, error)
            return False
        return True

    def finish(self) -> bool:
        """Bring the file to its place; return whether that went well."""
        try:
            self._stream.close()
            self._file.truncate()
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            logger.warning("rows are not kept in %s: %s", self._temporary.parent, error)
            return False
        return True

    def drop(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def mapped_batches(path: Path) -> Generator[pa.RecordBatch]:
    """Yield the batches of a file, mapped into memory: nothing is copied."""
    with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream


def remove_abandoned(root: Path) -> int:
    """Remove what processes that died have left below `root`; return how many files went."""
    return sum(remove_unlocked(folder) for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink())


def _check_owner(settings: SpoolSettings) -> None:
    """Refuse a folder that another user has put where this one's would be, and could read or alter rows in."""
    root = settings.root
    if settings.folder is None and (root.is_symlink() or root.stat().st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "it belongs to another user, or is a link", os.fspath(root))


def _files(root: Path) -> Iterator[Path]:
    for folder in root.iterdir():
        if folder.is_dir():
            with suppress(FileNotFoundError):
                yield from [file for file in folder.iterdir() if file.is_file()]


_open_spools: dict[str, Spool] = {}
_lock = Lock()


def spool_of(run: str, settings: SpoolSettings) -> Spool:
    """Return this process's spool of a run; made when it is first asked for.

    A source reaches a worker anew for each task, and finds what the task before has kept.

    Args:
        run: Identifies the run and the source.
        settings: Where, and how much.

    Raises:
        OSError: The folder cannot be made.
    """
    with _lock:
        if run not in _open_spools:
            _open_spools[run] = Spool(settings)
        return _open_spools[run]


def close_spool(run: str) -> None:
    """Remove what this process keeps of a run; nothing kept is no error."""
    with _lock:
        spool = _open_spools.pop(run, None)
    if spool is not None:
        spool.close()


@atexit.register
def _close_all() -> None:
    for run in list(_open_spools):
        close_spool(run)

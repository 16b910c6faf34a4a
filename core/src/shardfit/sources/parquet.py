"""Parquet files on any storage, as a source: a fragment is a row group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shardfit.errors import UnreadableSourceError
from shardfit.source import Claim, Fragment
from shardfit.sources.file_access import FileAccess, ListedFile, version_with_tag
from shardfit.sources.file_listing import paths_of
from shardfit.sources.file_source import FileOpener, FileSource, Listing
from shardfit.sources.schemas import check_same_columns, common_schema, join_features
from shardfit.sources.sparse_statistics import count_sparse

FOOTER_THREADS = 16
OPEN_FILES = 8
READ_BUFFER = 1 << 17
# Row groups of more bytes are streamed from remote storage instead of fetched whole.
_MOST_FETCHED = 1 << 28
_REMOTE_BUFFER = 1 << 23


class _Footer(NamedTuple):
    uri: str
    schema: pa.Schema
    fragments: tuple[Fragment, ...]


class ParquetSource(FileSource):
    """Row groups of Parquet files, sorted by file and then row group.

    Files are listed and their footers read once, on the driver, when the schema or the fragments are first asked for.
    Files may have their columns in different orders; the first file decides.

    Args:
        paths: As for `DataConnector.from_parquet`.
        options: `storage_options` and `filesystem`, both optional.
    """

    format = "Parquet"
    suffixes = (".parquet", ".parq", ".pq")

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        super().__init__(paths, options or {})
        self._open_files = _OpenFiles()
        self._threads = True

    def for_cpus(self, cpus: int) -> ParquetSource:
        """Return the source that leaves it at the thread which reads, where there is one CPU.

        Others would only wait for that CPU, and each thread keeps memory of its own in Arrow's pool.
        """
        source = copy(self)
        source._threads = cpus > 1
        return source

    def close(self) -> None:
        """Close the files that wait to be read again."""
        self._open_files.close()

    def _list_files(self, access: FileAccess, files: Sequence[ListedFile]) -> Listing:
        footers = read_footers(access, files)
        for footer in footers:
            check_same_columns(footers[0].schema, footer.schema, footers[0].uri, footer.uri)
        fragments = tuple(fragment for footer in footers for fragment in footer.fragments)
        schema = join_features([footer.schema for footer in footers])
        return Listing(schema, fragments, _hive_warning(schema, fragments))

    @contextmanager
    def _open(
        self, access: FileAccess, fragment: Fragment, columns: pa.Schema, batch_rows: int
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        with self._open_files.borrow(access, fragment) as file:
            yield _decode(file, fragment, columns.names, batch_rows, self._threads)

    def _unreadable(self, fragment: Fragment, columns: Sequence[str], error: object) -> UnreadableSourceError:
        access = self._reach()

        def read(column: str) -> None:
            with self._open_files.borrow(access, fragment) as file:
                for _ in _decode(file, fragment, [column], fragment.rows or 1, self._threads):
                    pass

        return damaged(f"{fragment.uri!r}, row group {fragment.index}", columns, read, error)


class ParquetOpener(FileOpener):
    """Opens paths that end in `.parquet`, `.parq` or `.pq`, and, as a last resort, paths that may be folders."""

    source = ParquetSource

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a path or a list of paths."""
        if (claim := super().claims(data)) is not None:
            return claim
        paths = paths_of(data)
        unknown = paths is not None and all("." not in path.rstrip("/").rpartition("/")[2] for path in paths)
        return Claim(1, "it may be a folder of Parquet files") if unknown else None


def damaged(place: str, columns: Sequence[str], read: Callable[[str], None], error: object) -> UnreadableSourceError:
    """Return the error for a place in a file that cannot be decoded; names the first column that fails.

    Args:
        place: In the user's words.
        columns: Which were read.
        read: Reads one of them alone.
        error: What failed.
    """
    bad = next((column for column in columns if not _can_read(column, read)), None)
    return UnreadableSourceError(
        f"reading {place}, " + (f"column {bad!r}" if bad else "a page"),
        str(error) or type(error).__name__,
        "The file is damaged; write it again or leave it out.",
    )


def read_footers(access: FileAccess, files: Sequence[ListedFile]) -> list[_Footer]:
    """Return what the footers of files say, in their order: address, schema and fragments.

    Args:
        access: How to open them.
        files: As they were listed.

    Raises:
        UnreadableSourceError: A file is cut short, or no Parquet file.
    """
    pool = ThreadPoolExecutor(FOOTER_THREADS, thread_name_prefix="shardfit-footers")
    # Files that agree share one schema: of 20,000 with ten columns each, their own would take 60 MB.
    seen: list[pa.Schema] = []
    try:
        return list(pool.map(lambda file: _read_footer(access, file, seen), files))
    finally:
        pool.shutdown(cancel_futures=True)


def _read_footer(access: FileAccess, file: ListedFile, seen: list[pa.Schema]) -> _Footer:
    try:
        with access.open(file.uri) as handle:
            version = version_with_tag(file.version, handle)
            with pq.ParquetFile(handle) as parquet:
                schema = common_schema(parquet.schema_arrow)
                metadata = parquet.metadata
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, UnreadableSourceError):
            raise
        raise UnreadableSourceError(
            f"reading the Parquet footer of {file.uri!r}",
            str(error) or type(error).__name__,
            "The file is cut short or no Parquet file; write it again or leave it out.",
        ) from error
    if seen and seen[0].equals(schema):
        schema = seen[0]
    else:
        seen.append(schema)
    width = sum(_fixed_width(column.type) for column in schema)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    schema, values = count_sparse(schema, groups)
    fragments = tuple(
        Fragment(
            file.uri, i, group.num_rows, max(group.total_byte_size, group.num_rows * width), version, values=values[i]
        )
        for i, group in enumerate(groups)
    )
    return _Footer(file.uri, schema, fragments)


def _fixed_width(kind: pa.DataType) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 0


def _decode(
    file: pq.ParquetFile, fragment: Fragment, columns: Sequence[str], batch_rows: int, threads: bool
) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = file.iter_batches(
        batch_size=batch_rows, row_groups=[fragment.index], columns=list(columns), use_threads=threads
    )
    return batches


class _OpenFiles:
    """A few open files that wait to be used again; each is lent to one reader at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: OrderedDict[tuple[tuple[str, str, bool], int], pq.ParquetFile] = OrderedDict()
        self._number = 0

    def __reduce__(self) -> tuple[type[_OpenFiles], tuple[()]]:
        # Open files do not travel to workers.
        return _OpenFiles, ()

    @contextmanager
    def borrow(self, access: FileAccess, fragment: Fragment) -> Iterator[pq.ParquetFile]:
        """Lend an open file; one that was not read to the end, or failed, is not kept."""
        file = self._take(fragment) or _open_planned(access, fragment)
        try:
            yield file
        except BaseException:
            file.close(force=True)
            raise
        self._keep(fragment, file)

    def close(self) -> None:
        """Close those that nobody reads."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for file in idle.values():
            file.close(force=True)

    def _take(self, fragment: Fragment) -> pq.ParquetFile | None:
        with self._lock:
            key = next((key for key in self._idle if key[0] == _kind(fragment)), None)
            return None if key is None else self._idle.pop(key)

    def _keep(self, fragment: Fragment, file: pq.ParquetFile) -> None:
        with self._lock:
            self._number += 1
            self._idle[_kind(fragment), self._number] = file
            oldest = self._idle.popitem(last=False)[1] if len(self._idle) > OPEN_FILES else None
        if oldest is not None:
            oldest.close(force=True)


def _kind(fragment: Fragment) -> tuple[str, str, bool]:
    """Return what an open file must have been opened for to serve a fragment."""
    return fragment.uri, fragment.version, _is_huge(fragment)


def _is_huge(fragment: Fragment) -> bool:
    return (fragment.bytes or 0) > _MOST_FETCHED


def _open_planned(access: FileAccess, fragment: Fragment) -> pq.ParquetFile:
    handle = access.open_planned(fragment)
    try:
        # Local files are read a column's buffer at a time; on remote storage, few large requests are what counts, as
        # long as what they bring fits into memory.
        remote = access.filesystem.type_name != "local"
        fetched = remote and not _is_huge(fragment)
        buffer = 0 if fetched else _REMOTE_BUFFER if remote else READ_BUFFER
        return pq.ParquetFile(handle, pre_buffer=fetched, buffer_size=buffer, page_checksum_verification=True)
    except BaseException:
        handle.close()
        raise


def _can_read(column: str, read: Callable[[str], None]) -> bool:
    try:
        read(column)
    except (OSError, pa.ArrowException):
        return False
    return True


def _hive_warning(schema: pa.Schema, fragments: Sequence[Fragment]) -> tuple[str, ...]:
    for fragment in fragments:
        folder = next((part for part in fragment.uri.split("/")[:-1] if "=" in part), None)
        if folder and folder.partition("=")[0] not in schema.names:
            return (
                f"the folder {folder!r} looks like a hive partition, whose value is in no column: use "
                "DataConnector.from_dataset(pyarrow.dataset.dataset(path, partitioning='hive')) to have it",
            )
    return ()

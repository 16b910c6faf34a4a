"""Parquet files on any storage, as a source: a fragment is a row group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shardfit.errors import ChangedDataError, UnreadableSourceError
from shardfit.redaction import redact_url
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.file_access import FileAccess, ListedFile, changed, version_with_tag
from shardfit.sources.file_listing import has_suffix, list_files, paths_of
from shardfit.sources.row_range import take_rows
from shardfit.sources.schemas import check_same_columns, common_schema, conform, join_features, select_columns
from shardfit.sources.sparse_statistics import count_sparse

SUFFIXES = (".parquet", ".parq", ".pq")
FOOTER_THREADS = 16
OPEN_FILES = 8
_READ_BUFFER = 1 << 20
# Row groups of more bytes are streamed from remote storage instead of fetched whole.
_MOST_FETCHED = 1 << 28
_REMOTE_BUFFER = 1 << 23


class _Listing(NamedTuple):
    access: FileAccess
    schema: pa.Schema
    fragments: tuple[Fragment, ...]


class _Footer(NamedTuple):
    uri: str
    schema: pa.Schema
    fragments: tuple[Fragment, ...]


class ParquetSource(DataSource):
    """Row groups of Parquet files, sorted by file and then row group.

    Files are listed and their footers read once, on the driver, when the schema or the fragments are first asked for.
    Files may have their columns in different orders; the first file decides.

    Args:
        paths: As for `DataConnector.from_parquet`.
        options: `storage_options` and `filesystem`, both optional.
    """

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        self._paths = tuple(paths)
        self._options = dict(options or {})
        self._listing: _Listing | None = None
        self._access: FileAccess | None = None
        self._schema: pa.Schema | None = None
        self._open_files = _OpenFiles()

    def schema(self) -> pa.Schema:
        """Return the columns, as the first file has them."""
        return self._schema if self._schema is not None else self._list().schema

    def fragments(self) -> Sequence[Fragment]:
        """Return every row group, with its size and the version of its file."""
        return self._list().fragments

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a row group, decoded batch by batch; rows before `start` are decoded and thrown away."""
        access, schema = self._reach(), select_columns(self.schema(), tuple(columns))
        access.check_version(fragment)
        try:
            with self._open_files.borrow(access, fragment) as file:
                batches = _decode(file, fragment, columns, batch_rows)
                for batch in take_rows(batches, start, stop, batch_rows):
                    yield conform(batch, schema)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ChangedDataError | UnreadableSourceError | MemoryError):
                raise
            access.check_version(fragment)
            raise _corrupt(fragment, self._bad_column(fragment, columns, access), error) from error
        access.check_version(fragment)

    def close(self) -> None:
        """Close the files that wait to be read again."""
        self._open_files.close()

    def describe(self) -> str:
        """Return the paths."""
        shown = ", ".join(repr(redact_url(path)) for path in self._paths[:3])
        return f"Parquet {shown}" + (f" and {len(self._paths) - 3} more" if len(self._paths) > 3 else "")

    def warnings(self) -> tuple[str, ...]:
        """Return a warning if folders look like hive partitions, whose values are not read."""
        for fragment in self.fragments():
            folder = next((part for part in fragment.uri.split("/")[:-1] if "=" in part), None)
            if folder and folder.partition("=")[0] not in self.schema().names:
                return (
                    f"the folder {folder!r} looks like a hive partition, whose value is in no column: use "
                    "DataConnector.from_dataset(pyarrow.dataset.dataset(path, partitioning='hive')) to have it",
                )
        return ()

    def __getstate__(self) -> dict[str, Any]:
        # Workers are told their fragments: what they need beside is how to reach the files.
        state = {"_paths": self._paths, "_options": self._options, "_listing": None, "_schema": self._schema}
        return {**state, "_access": self._access}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_files = _OpenFiles()

    def _list(self) -> _Listing:
        if self._listing is None:
            access, files = list_files(self._paths, SUFFIXES, self._options)
            footers = read_footers(access, files)
            for footer in footers:
                check_same_columns(footers[0].schema, footer.schema, footers[0].uri, footer.uri)
            fragments = tuple(fragment for footer in footers for fragment in footer.fragments)
            schema = join_features([footer.schema for footer in footers])
            self._listing = _Listing(access, schema, fragments)
            self._access, self._schema = access, schema
        return self._listing

    def _reach(self) -> FileAccess:
        return self._access if self._access is not None else self._list().access

    def _bad_column(self, fragment: Fragment, columns: Sequence[str], access: FileAccess) -> str | None:
        def read(column: str) -> None:
            with self._open_files.borrow(access, fragment) as file:
                for _ in _decode(file, fragment, [column], fragment.rows or 1):
                    pass

        return find_bad_column(columns, read)


class ParquetOpener:
    """Opens paths that end in `.parquet`, `.parq` or `.pq`, and, as a last resort, paths that may be folders."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a path or a list of paths."""
        paths = paths_of(data)
        if paths is None:
            return None
        if all(has_suffix(path, SUFFIXES) for path in paths):
            return Claim(10, "the suffix of Parquet files")
        unknown = all("." not in path.rstrip("/").rpartition("/")[2] for path in paths)
        return Claim(1, "it may be a folder of Parquet files") if unknown else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a path or a list of paths; nothing is read yet.

        Args:
            data: A path, folder, glob or URL, or a list of them.
            options: `storage_options` and `filesystem`, both optional.
        """
        return ParquetSource(paths_of(data) or (), options)


def find_bad_column(columns: Sequence[str], read: Callable[[str], None]) -> str | None:
    """Return the first of `columns` that cannot be read alone, or None."""
    for column in columns:
        try:
            read(column)
        except (OSError, pa.ArrowException):
            return column
    return None


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
    file: pq.ParquetFile, fragment: Fragment, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = file.iter_batches(
        batch_size=batch_rows, row_groups=[fragment.index], columns=list(columns)
    )
    return batches


class _OpenFiles:
    """A few open files that wait to be used again; each is lent to one reader at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: OrderedDict[tuple[tuple[str, str, bool], int], pq.ParquetFile] = OrderedDict()
        self._number = 0

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
    handle = access.open(fragment.uri)
    try:
        found = version_with_tag(fragment.version.partition(";")[0], handle)
        if found != fragment.version:
            raise changed(fragment, found)
        # Local files are read a column's buffer at a time; on remote storage, few large requests are what counts, as
        # long as what they bring fits into memory.
        remote = access.filesystem.type_name != "local"
        fetched = remote and not _is_huge(fragment)
        buffer = 0 if fetched else _REMOTE_BUFFER if remote else _READ_BUFFER
        return pq.ParquetFile(handle, pre_buffer=fetched, buffer_size=buffer, page_checksum_verification=True)
    except BaseException:
        handle.close()
        raise


def _corrupt(fragment: Fragment, column: str | None, error: BaseException) -> UnreadableSourceError:
    where = f"column {column!r}" if column else "a page"
    return UnreadableSourceError(
        f"reading {fragment.uri!r}, row group {fragment.index}, {where}",
        str(error) or type(error).__name__,
        "The file is damaged; write it again or leave it out.",
    )

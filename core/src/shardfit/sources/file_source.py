"""What sources of files share: they are listed once, on the driver, and each fragment is that of a planned version."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from shardfit.errors import UnreadableSourceError
from shardfit.redaction import redact_urls
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.file_access import FileAccess, ListedFile
from shardfit.sources.file_listing import has_suffix, list_files, paths_of
from shardfit.sources.row_range import take_rows
from shardfit.sources.schemas import conform, select_columns


class Listing(NamedTuple):
    """What listing files finds out.

    Args:
        schema: Columns of every fragment.
        fragments: In row order.
        warnings: What the plan should tell.
    """

    schema: pa.Schema
    fragments: tuple[Fragment, ...]
    warnings: tuple[str, ...] = ()


class FileSource(DataSource):
    """Rows of files of one format, sorted by file. A format says how its files are listed and how one is read.

    Args:
        paths: As for `file_listing.list_files`.
        storage: `storage_options` and `filesystem`, both optional; others are ignored.
    """

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, paths: Sequence[str], storage: Mapping[str, Any]) -> None:
        self._paths = tuple(paths)
        self._storage = dict(storage)
        self._listing: Listing | None = None
        self._access: FileAccess | None = None
        self._schema: pa.Schema | None = None

    @abstractmethod
    def _list_files(self, access: FileAccess, files: Sequence[ListedFile]) -> Listing:
        """Return what is in the files. Called once, on the driver."""

    @abstractmethod
    def _open(
        self, access: FileAccess, fragment: Fragment, columns: pa.Schema, batch_rows: int
    ) -> AbstractContextManager[Iterable[pa.RecordBatch]]:
        """Open a fragment for reading `columns` from its first row on; batches may hold more columns, and more rows."""

    @abstractmethod
    def _unreadable(self, fragment: Fragment, columns: Sequence[str], error: object) -> UnreadableSourceError:
        """Return the error for a fragment of a file that has not changed and cannot be read."""

    def schema(self) -> pa.Schema:
        """Return the columns, as the first file has them."""
        return self._schema if self._schema is not None else self._list().schema

    def fragments(self) -> Sequence[Fragment]:
        """Return every fragment of every file, with its exact row count and the version of its file."""
        return self._list().fragments

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment; rows before `start` are decoded and thrown away."""
        access, wanted = self._reach(), select_columns(self.schema(), tuple(columns))
        decoded = 0

        def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            nonlocal decoded
            for batch in batches:
                decoded += batch.num_rows
                yield batch

        with (
            access.planned(fragment, lambda error: self._unreadable(fragment, columns, error)),
            self._open(access, fragment, wanted, batch_rows) as batches,
        ):
            for batch in take_rows(counted(batches), start, stop, batch_rows):
                yield conform(batch, wanted)
        if decoded < stop:
            found = f"found {decoded} rows where {fragment.rows} were counted"
            raise self._unreadable(fragment, columns, found)

    def describe(self) -> str:
        """Return the paths."""
        return f"{self.format} {redact_urls(self._paths)}"

    def warnings(self) -> tuple[str, ...]:
        """Return what listing the files has found."""
        return self._list().warnings

    def __getstate__(self) -> dict[str, Any]:
        # Workers are told their fragments: what they need beside is how to reach and decode the files.
        return {**self.__dict__, "_listing": None}

    def _list(self) -> Listing:
        if self._listing is None:
            access, files = list_files(self._paths, self.suffixes, self._storage)
            self._listing = self._list_files(access, files)
            self._access, self._schema = access, self._listing.schema
        return self._listing

    def _reach(self) -> FileAccess:
        if self._access is None:
            self._list()
        assert self._access is not None
        return self._access


class FileOpener:
    """Opens paths whose suffix is that of a format, as the source of that format."""

    source: ClassVar[type[FileSource]]

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a path or a list of paths."""
        paths = paths_of(data)
        fits = paths is not None and all(has_suffix(path, self.source.suffixes) for path in paths)
        return Claim(10, f"the suffix of {self.source.format} files") if fits else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a path or a list of paths; nothing is read yet.

        Args:
            data: A path, folder, glob or URL, or a list of them.
            options: As for the source of the format.

        Raises:
            UnknownParameterError: There is no such option; suggests the nearest.
            InvalidArgumentError: An option has a value that cannot be used.
        """
        return self.source(paths_of(data) or (), options)

"""CSV files on any storage, as a source: a fragment is a range of bytes, or a whole file that cannot be divided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from shardfit.errors import ChangedDataError, UnreadableSourceError
from shardfit.redaction import redact_url
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.csv_options import CsvOptions
from shardfit.sources.csv_planning import CsvListing, list_csv
from shardfit.sources.csv_reading import COMPRESSED, open_fragment, unreadable
from shardfit.sources.file_access import FileAccess
from shardfit.sources.file_listing import has_suffix, list_files, paths_of
from shardfit.sources.row_range import take_rows
from shardfit.sources.schemas import conform, select_columns

_TEXT_SUFFIXES = (".csv", ".tsv", ".csv.txt")
SUFFIXES = _TEXT_SUFFIXES + tuple(text + packed for text in _TEXT_SUFFIXES for packed in COMPRESSED)
_TAB_SUFFIXES = (".tsv", *(".tsv" + packed for packed in COMPRESSED))


class CsvSource(DataSource):
    """Rows of CSV files, sorted by file.

    The files are scanned once, on the driver, to count rows and to find where they start, quoted newlines respected;
    a worker then reads its range of bytes only. Names and types are settled on the driver and the same for every
    fragment. Compressed files, and those whose quotes do not tell where rows start, are one fragment each.

    Args:
        paths: As for `DataConnector.from_csv`.
        options: As for `CsvOptions`, and `storage_options` and `filesystem`. Files that end in `.tsv` have tabs as
            delimiters, if nothing else is said.
    """

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        self._paths = tuple(paths)
        self._storage = dict(options or {})
        tabs = bool(paths) and all(has_suffix(path, _TAB_SUFFIXES) for path in paths)
        self._options = CsvOptions.from_mapping(options or {}, **({"delimiter": "\t"} if tabs else {}))
        self._listing: CsvListing | None = None
        self._access: FileAccess | None = None
        self._schema: pa.Schema | None = None

    def schema(self) -> pa.Schema:
        """Return the columns, as the first file has them, with the types found in samples of all files."""
        return self._schema if self._schema is not None else self._list().schema

    def fragments(self) -> Sequence[Fragment]:
        """Return every range of bytes with its exact row count."""
        return self._list().fragments

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment; rows before `start` are parsed and thrown away."""
        access, schema = self._reach(), self.schema()
        wanted = select_columns(schema, tuple(columns))
        # Without a single column pyarrow would read them all.
        types = {name: schema.field(name).type for name in columns or schema.names[:1]}
        access.check_version(fragment)
        parsed = 0

        def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            nonlocal parsed
            for batch in batches:
                parsed += batch.num_rows
                yield batch

        try:
            with open_fragment(access, fragment, schema.names, self._options, types, list(types)) as batches:
                for batch in take_rows(count(batches), start, stop, batch_rows):
                    yield conform(batch, wanted)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ChangedDataError | UnreadableSourceError | MemoryError):
                raise
            access.check_version(fragment)
            raise unreadable(str(fragment), error) from error
        access.check_version(fragment)
        if parsed < stop:
            raise unreadable(str(fragment), f"found {parsed} rows where {fragment.rows} were counted")

    def describe(self) -> str:
        """Return the paths."""
        shown = ", ".join(repr(redact_url(path)) for path in self._paths[:3])
        return f"CSV {shown}" + (f" and {len(self._paths) - 3} more" if len(self._paths) > 3 else "")

    def warnings(self) -> tuple[str, ...]:
        """Return which files are read by one worker each because they cannot be divided."""
        return self._list().warnings

    def __getstate__(self) -> dict[str, Any]:
        # Workers are told their fragments: what they need beside is how to reach and parse the files.
        return {**self.__dict__, "_listing": None}

    def _list(self) -> CsvListing:
        if self._listing is None:
            access, files = list_files(self._paths, SUFFIXES, self._storage)
            self._listing = list_csv(access, files, self._options)
            self._access, self._schema = access, self._listing.schema
        return self._listing

    def _reach(self) -> FileAccess:
        if self._access is None:
            self._list()
        return self._access  # type: ignore[return-value]


class CsvOpener:
    """Opens paths that end in `.csv` or `.tsv`, compressed ones as well."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a path or a list of paths."""
        paths = paths_of(data)
        fits = paths is not None and all(has_suffix(path, SUFFIXES) for path in paths)
        return Claim(10, "the suffix of CSV files") if fits else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a path or a list of paths; nothing is read yet.

        Args:
            data: A path, folder, glob or URL, or a list of them.
            options: As for `CsvSource`.

        Raises:
            UnknownParameterError: There is no such option; suggests the nearest.
            InvalidArgumentError: An option has a value that cannot be used.
        """
        return CsvSource(paths_of(data) or (), options)

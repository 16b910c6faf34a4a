"""CSV files on any storage, as a source: a fragment is a range of bytes, or a whole file that cannot be divided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from shardfit.errors import UnreadableSourceError
from shardfit.source import Fragment
from shardfit.sources.csv_options import CsvOptions
from shardfit.sources.csv_planning import list_csv
from shardfit.sources.csv_reading import open_fragment, unreadable
from shardfit.sources.file_access import FileAccess, ListedFile
from shardfit.sources.file_listing import has_suffix
from shardfit.sources.file_source import FileOpener, FileSource, Listing
from shardfit.sources.text_files import with_compressed

_TAB_SUFFIXES = with_compressed((".tsv",))


class CsvSource(FileSource):
    """Rows of CSV files, sorted by file.

    The files are scanned once, on the driver, to count rows and to find where they start, quoted newlines respected;
    a worker then reads its range of bytes only. Names and types are settled on the driver and the same for every
    fragment. Compressed files, and those whose quotes do not tell where rows start, are one fragment each.

    Args:
        paths: As for `DataConnector.from_csv`.
        options: As for `CsvOptions`, and `storage_options` and `filesystem`. Files that end in `.tsv` have tabs as
            delimiters, if nothing else is said.
    """

    format = "CSV"
    suffixes = with_compressed((".csv", ".tsv", ".csv.txt"))

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        super().__init__(paths, options or {})
        tabs = bool(paths) and all(has_suffix(path, _TAB_SUFFIXES) for path in paths)
        self._options = CsvOptions.from_mapping(options or {}, **({"delimiter": "\t"} if tabs else {}))

    def _list_files(self, access: FileAccess, files: Sequence[ListedFile]) -> Listing:
        return list_csv(access, files, self._options)

    def _open(
        self, access: FileAccess, fragment: Fragment, columns: pa.Schema, batch_rows: int
    ) -> AbstractContextManager[Iterable[pa.RecordBatch]]:
        schema = self.schema()
        # Without a single column pyarrow would read them all.
        types = {name: schema.field(name).type for name in columns.names or schema.names[:1]}
        return open_fragment(access, fragment, schema.names, self._options, types, list(types))

    def _unreadable(self, fragment: Fragment, columns: Sequence[str], error: object) -> UnreadableSourceError:
        return unreadable(str(fragment), error)


class CsvOpener(FileOpener):
    """Opens paths that end in `.csv` or `.tsv`, compressed ones as well."""

    source = CsvSource

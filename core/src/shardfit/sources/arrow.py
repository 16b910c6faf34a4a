"""Arrow tables in the driver's memory, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.schemas import common_schema

FRAGMENT_ROWS = 131_072


class ArrowSource(DataSource):
    """Rows of an Arrow table, in the order given; fragments are slices and nothing is copied.

    Args:
        table: The rows.
        name: What `describe` calls it.
        fragment_rows: Rows of a fragment, 1 or more.
    """

    def __init__(self, table: pa.Table, name: str = "an Arrow table", fragment_rows: int = FRAGMENT_ROWS) -> None:
        wanted = common_schema(table.schema)
        self._table = table if table.schema.equals(wanted) else table.cast(wanted)
        self._name = name
        self._fragment_rows = fragment_rows

    def schema(self) -> pa.Schema:
        """Return the columns and their Arrow types."""
        return self._table.schema

    def fragments(self) -> Sequence[Fragment]:
        """Return slices of about equal size, in row order."""
        rows, size = self._table.num_rows, self._fragment_rows
        row_bytes = self._table.nbytes / max(rows, 1)
        starts = range(0, rows, size)
        lengths = [min(size, rows - start) for start in starts]
        return tuple(Fragment("memory:0", i, length, int(length * row_bytes)) for i, length in enumerate(lengths))

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a slice as views of the table."""
        first = fragment.index * self._fragment_rows + start
        rows = self._table.select(list(columns)).slice(first, stop - start)
        yield from (batch for batch in rows.to_batches(max_chunksize=batch_rows) if batch.num_rows)

    def describe(self) -> str:
        """Return the name, rows and columns."""
        return f"{self._name}, {self._table.num_rows} rows, {self._table.num_columns} columns"

    def in_memory(self) -> bool:
        """Return True: pickling copies the table."""
        return True


class ArrowOpener:
    """Opens Arrow tables and record batches."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a table or record batch."""
        return Claim(10, "an Arrow table") if isinstance(data, pa.Table | pa.RecordBatch) else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a table; it takes no options."""
        return ArrowSource(pa.table(data))

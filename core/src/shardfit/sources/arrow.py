"""Arrow tables in the driver's memory, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.schemas import common_schema
from shardfit.sparse import MOST_FEATURES, count_values, features_of, is_sparse, largest_index, with_features

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
        table = table if table.schema.equals(wanted) else table.cast(wanted)
        self._table = pa.table(table.columns, schema=_counted(wanted, table))
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
        values = [self._count_values(start, length) for start, length in zip(starts, lengths, strict=True)]
        return tuple(
            Fragment("memory:0", i, length, int(length * row_bytes), values=values[i])
            for i, length in enumerate(lengths)
        )

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a slice as views of the table."""
        first = fragment.index * self._fragment_rows + start
        rows = self._table.select(list(columns)).slice(first, stop - start)
        yield from (batch for batch in rows.to_batches(max_chunksize=batch_rows) if batch.num_rows)

    def _count_values(self, start: int, rows: int) -> int | None:
        sparse = next((column.name for column in self._table.schema if is_sparse(column.type)), None)
        return None if sparse is None else count_values(self._table.column(sparse).slice(start, rows))

    def describe(self) -> str:
        """Return the name, rows and columns."""
        return f"{self._name}, {self._table.num_rows} rows, {self._table.num_columns} columns"

    def in_memory(self) -> bool:
        """Return True: pickling copies the table."""
        return True


def _counted(schema: pa.Schema, table: pa.Table) -> pa.Schema:
    """Return the schema with the number of features of each sparse column that does not say it."""
    for i, column in enumerate(schema):
        if is_sparse(column.type) and features_of(column) is None:
            found = largest_index(table.column(i)) + 1
            schema = schema.set(i, with_features(column, found) if 1 <= found <= MOST_FEATURES else column)
    return schema


class ArrowOpener:
    """Opens Arrow tables and record batches."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a table or record batch."""
        return Claim(10, "an Arrow table") if isinstance(data, pa.Table | pa.RecordBatch) else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a table; it takes no options."""
        return ArrowSource(pa.table(data))

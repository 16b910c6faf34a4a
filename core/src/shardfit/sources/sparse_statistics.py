"""What the footers of Parquet files say of sparse columns: how many values there are, and the largest index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from shardfit.sparse import MOST_FEATURES, features_of, is_sparse, with_features


def count_sparse(schema: pa.Schema, groups: Sequence[Any]) -> tuple[pa.Schema, list[int | None]]:
    """Return the schema with the number of features of its sparse column, and the values of each row group.

    Args:
        schema: Of the file.
        groups: `pyarrow.parquet.RowGroupMetaData` of each row group.

    Returns:
        The schema as it was, and None for each row group, where there is no sparse column.
    """
    place = next((i for i, column in enumerate(schema) if is_sparse(column.type)), None)
    if place is None:
        return schema, [None] * len(groups)
    column = schema.field(place)
    chunks = [_index_chunk(group, column.name) for group in groups]
    values = [None if chunk is None else _count(chunk, group) for chunk, group in zip(chunks, groups, strict=True)]
    if features_of(column) is None:
        largest = _largest(chunks)
        known = largest is not None and 0 <= largest < MOST_FEATURES
        schema = schema.set(place, with_features(column, largest + 1 if known and largest is not None else None))
    return schema, values


def _index_chunk(group: Any, name: str) -> Any:
    """Return the metadata of the indices of a sparse column; files call the elements of lists by different names."""
    for i in range(group.num_columns):
        chunk = group.column(i)
        path = chunk.path_in_schema
        if path.startswith(f"{name}.") and path.endswith(".index"):
            return chunk
    return None


def _count(chunk: Any, group: Any) -> int:
    statistics = chunk.statistics
    if statistics is not None and statistics.has_null_count:
        # Rows without a value count as nulls.
        return int(statistics.num_values)
    return max(int(chunk.num_values) - int(group.num_rows), 0)


def _largest(chunks: Sequence[Any]) -> int | None:
    """Return the largest index; None where a row group does not say."""
    largest = -1
    for chunk in chunks:
        statistics = None if chunk is None else chunk.statistics
        if statistics is None or not statistics.has_min_max:
            if statistics is not None and statistics.has_null_count and not statistics.num_values:
                continue
            return None
        largest = max(largest, int(statistics.max))
    return largest

"""What reading and profiling take, whatever library trains; the figures are fitted to `benchmarks/memory_plan.py`."""

from __future__ import annotations

from shardfit.batch_rows import batch_rows, most_even_rows
from shardfit.data_shape import DataShape
from shardfit.memory_plan import MemoryPart
from shardfit.profile.samples import MOST_SAMPLE_BYTES, MOST_SAMPLE_ROWS
from shardfit.shard_reader import FEW_SLICES, MOST_JOINED_BYTES
from shardfit.sources.parquet import READ_BUFFER
from shardfit.sparse import SAMPLED_VALUE_BYTES, most_distinct

_PROCESS = 180 * 2**20
_BATCHES = 4
# Of each column that is being decoded from a file, beside its read buffer: its dictionary twice, half a page.
_COLUMN_STATE, _MOST_COLUMN_BYTES = 2.5, 2**20
_DISTINCT = 1024
# A range of bytes of a text file, and the words of the part of it that is being parsed.
_PARSED = 64 * 2**20


def core_parts(shape: DataShape, *, profiles: bool, batches: int = _BATCHES) -> list[MemoryPart]:
    """Return what every worker's memory goes to beside the library's own.

    Args:
        shape: Size of the largest worker's shards.
        profiles: Whether the trainer wants a profile.
        batches: How many decoded batches are there at a time.
    """
    if shape.values is not None:
        return sparse_parts(shape, profiles=profiles, batches=batches)
    row_bytes = shape.row_bytes or 4 * (shape.columns or shape.features)
    fragment, shard = shape.fragment_rows or shape.total_rows, max(shape.rows, shape.eval_rows)
    most = batch_rows(shape.columns or shape.features)
    rows = min(most_even_rows(fragment, most), shard)
    # Where there are many, those of few rows are joined.
    if shard > FEW_SLICES * fragment:
        rows = max(rows, min(most, MOST_JOINED_BYTES // max(row_bytes, 1)))
    parts = [
        _process(),
        MemoryPart(
            "batches",
            batches * rows * row_bytes,
            f"{batches} batches of {rows:,} decoded rows, {row_bytes:,} bytes each",
            ("profile", "ingest"),
        ),
        _decoders(shape, row_bytes),
    ]
    if not profiles:
        return parts
    why = f"{rows:,} rows as float32, where a library takes them as a matrix"
    encoded = MemoryPart("encoded", rows * 4 * shape.features, why, ("ingest",))
    return [*parts, encoded, *_profile_parts(shape)]


def sparse_parts(shape: DataShape, *, profiles: bool, batches: int) -> list[MemoryPart]:
    """Return what every worker's memory goes to where features are sparse; arguments as for `core_parts`."""
    values, per_row = shape.values or 0, -(-shape.total_values // max(shape.total_rows, 1))
    most = min(shape.fragment_rows or shape.total_rows, max(shape.rows, shape.eval_rows))
    rows = most_even_rows(most, batch_rows(shape.columns + 2 * per_row))
    parts = [
        _process(),
        MemoryPart(
            "batches",
            (batches + 1) * rows * shape.row_bytes + _PARSED,
            f"{batches} batches of {rows:,} decoded rows, {shape.row_bytes:,} bytes each, one of them twice, and text",
            ("profile", "ingest"),
        ),
    ]
    if not profiles:
        return parts
    share = shape.total_values if shape.shares_driver else values
    sampled = min(SAMPLED_VALUE_BYTES * share, MOST_SAMPLE_BYTES, SAMPLED_VALUE_BYTES * per_row * MOST_SAMPLE_ROWS)
    distinct = min(share, shape.features * most_distinct(shape.features, _DISTINCT, 2))
    return [
        *parts,
        MemoryPart("sample", 2 * sampled, "values that bins come from, twice while they are sorted", ("profile",)),
        MemoryPart(
            "distinct",
            32 * distinct,
            f"up to {distinct:,} distinct values, which are being sorted",
            ("profile",),
        ),
        MemoryPart("counts", 48 * shape.features, "counts and ends of each feature", ("profile",)),
    ]


def sample_bytes(rows: int, features: int) -> int:
    """Return the bytes of the sample that bins are chosen from.

    Args:
        rows: Rows of the whole table.
        features: Number of features.
    """
    most = max(MOST_SAMPLE_BYTES // (4 * max(features, 1)), 8192)
    return 4 * features * min(rows, MOST_SAMPLE_ROWS, most)


def _process() -> MemoryPart:
    return MemoryPart("process", _PROCESS, "Python, pyarrow, NumPy and shardfit themselves")


def _decoders(shape: DataShape, row_bytes: int) -> MemoryPart:
    columns = shape.columns or shape.features
    column = shape.file_rows * row_bytes // max(columns, 1)
    state = int(_COLUMN_STATE * min(column, _MOST_COLUMN_BYTES)) + min(column, READ_BUFFER)
    return MemoryPart(
        "decoders",
        state * columns,
        f"buffers, dictionaries and pages of {columns:,} columns that are read at once",
        ("profile", "ingest"),
    )


def _profile_parts(shape: DataShape) -> list[MemoryPart]:
    whole = sample_bytes(shape.total_rows, shape.features)
    share = whole if shape.shares_driver else whole * shape.rows // max(shape.total_rows, 1)
    return [
        MemoryPart(
            "sample",
            share if shape.shares_driver else 2 * share,
            "the rows that bins are chosen from" + ("" if shape.shares_driver else ", twice while they are sent"),
            ("profile",),
        ),
        MemoryPart(
            "distinct",
            16 * _DISTINCT * shape.features,
            f"up to {_DISTINCT:,} distinct values of each feature, and their hashes",
            ("profile",),
        ),
    ]

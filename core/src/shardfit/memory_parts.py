"""What reading and profiling take, whatever library trains; the figures are fitted to `benchmarks/memory_plan.py`."""

from __future__ import annotations

from shardfit.batch_rows import batch_rows
from shardfit.data_shape import DataShape
from shardfit.memory_plan import MemoryPart
from shardfit.shard_reader import FEW_SLICES, MOST_JOINED_BYTES

_PROCESS = 180 * 2**20
_BATCHES = 4
_COLUMN_BUFFER = 2**20
_MOST_SAMPLE_ROWS = 200_000
_MOST_SAMPLE_BYTES = 256 * 2**20
_DISTINCT = 1024


def core_parts(shape: DataShape, *, profiles: bool, batches: int = _BATCHES) -> list[MemoryPart]:
    """Return what every worker's memory goes to beside the library's own.

    Args:
        shape: Size of the largest worker's shards.
        profiles: Whether the trainer wants a profile.
        batches: How many decoded batches are there at a time.
    """
    row_bytes = shape.row_bytes or 4 * (shape.columns or shape.features)
    fragment, shard = shape.fragment_rows or shape.total_rows, max(shape.rows, shape.eval_rows)
    # Where there are many, those of few rows are joined.
    if shard > FEW_SLICES * fragment:
        fragment = max(fragment, MOST_JOINED_BYTES // max(row_bytes, 1))
    rows = min(batch_rows(shape.columns or shape.features), fragment, shard)
    parts = [
        MemoryPart("process", _PROCESS, "Python, pyarrow, NumPy and shardfit themselves"),
        MemoryPart(
            "batches",
            batches * rows * row_bytes + rows * 4 * shape.features,
            f"{batches} batches of {rows:,} decoded rows, {row_bytes:,} bytes each, and one of them as float32",
            ("profile", "ingest"),
        ),
    ]
    return [*parts, *_profile_parts(shape)] if profiles else parts


def sample_bytes(rows: int, features: int) -> int:
    """Return the bytes of the sample that bins are chosen from.

    Args:
        rows: Rows of the whole table.
        features: Number of features.
    """
    most = max(_MOST_SAMPLE_BYTES // (4 * max(features, 1)), 8192)
    return 4 * features * min(rows, _MOST_SAMPLE_ROWS, most)


def _profile_parts(shape: DataShape) -> list[MemoryPart]:
    whole = sample_bytes(shape.total_rows, shape.features)
    share = whole if shape.shares_driver else whole * shape.rows // max(shape.total_rows, 1)
    return [
        MemoryPart(
            "sample",
            2 * share,
            "the rows that bins are chosen from, twice while they are put together",
            ("profile",),
        ),
        MemoryPart(
            "distinct",
            16 * _DISTINCT * shape.features,
            f"up to {_DISTINCT:,} distinct values of each feature, and their hashes",
            ("profile",),
        ),
    ]

"""Cutting a stream of batches down to a range of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def take_rows(batches: Iterable[pa.RecordBatch], start: int, stop: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield rows `start` to `stop` (exclusive) of a stream, at most `batch_rows` a batch, without copies.

    Args:
        batches: Batches of any size; no more of them are asked for than the range needs.
        start: First row of the stream to yield.
        stop: Row after the last one to yield.
        batch_rows: 1 or more.
    """
    position = 0
    for batch in batches:
        if position >= stop:
            return
        first, last = max(start - position, 0), min(stop - position, batch.num_rows)
        for begin in range(first, last, batch_rows):
            yield batch.slice(begin, min(batch_rows, last - begin))
        position += batch.num_rows
        if position >= stop:
            return

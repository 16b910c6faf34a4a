"""What a profile keeps of the values themselves: rows chosen by their numbers, distinct values by their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from shardfit.row_hash import hash_rows, hash_values, rows_below

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

MOST_SAMPLE_ROWS = 200_000
MOST_SAMPLE_BYTES = 256 * 2**20
_HIGHEST_HASH = np.uint32(2**32 - 1)


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """Which rows and values a profile keeps.

    Args:
        seed: Seed of the row hash.
        fraction: Share of the rows, 0 to 1; a row is kept by the hash of its global number alone.
        distinct: Most distinct values kept for each column; 0 for none.
    """

    seed: int
    fraction: float
    distinct: int = 1024

    @classmethod
    def within(cls, seed: int, rows: int, columns: int, max_rows: int, max_bytes: int) -> SampleSpec:
        """Return the spec that keeps about as many rows as both limits allow.

        Args:
            seed: Seed of the row hash.
            rows: Rows of the whole dataset.
            columns: Columns of the sample, 4 bytes each.
            max_rows: Most rows, on average over seeds.
            max_bytes: Most bytes, on average over seeds; never fewer than 8,192 rows.
        """
        wanted = min(max_rows, max(max_bytes // (4 * max(columns, 1)), 8192))
        return cls(seed, min(1.0, wanted / max(rows, 1)))

    def keeps(self, row_ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Return which rows the sample keeps; bool, shape [rows]."""
        if self.fraction >= 1.0:
            return np.ones(len(row_ids), dtype=bool)
        return hash_rows(row_ids, self.seed) < rows_below(self.fraction)

    def most_kept(self, rows: int) -> int:
        """Return how many of `rows` rows the sample keeps at most, but for one draw in a hundred million."""
        expected = self.fraction * rows
        return min(rows, int(expected + 6 * expected**0.5) + 1)


class SampledRows:
    """Takes in sampled rows, which lie column by column in one piece of memory: cut points are chosen so.

    Args:
        features: Number of columns.
        room: For how many rows there is to be room; more are copied into a larger piece.
    """

    def __init__(self, features: int, room: int) -> None:
        # The system gives memory when it is written to, so that too much room costs nothing.
        self._columns = np.empty((features, room), dtype=np.float32)
        self._rows = 0

    def room_for(self, rows: int) -> Float32Array:
        """Return where the next rows are to be written at once: float32, shape [features, rows]."""
        start, stop = self._rows, self._rows + rows
        if stop > self._columns.shape[1]:
            smaller, room = self._columns, max(stop, 2 * self._columns.shape[1])
            self._columns = np.empty((len(smaller), room), dtype=np.float32)
            self._columns[:, :start] = smaller[:, :start]
        self._rows = stop
        return self._columns[:, start:stop]

    def build(self) -> Float32Array:
        """Return what was written: float32, shape [rows, features]; a view."""
        return self._columns[:, : self._rows].T


@dataclass(frozen=True, eq=False)
class DistinctValues:
    """A sample of one column's distinct values: those with the smallest hashes, at most `limit`.

    Every distinct value has the same chance, however rare it is; while fewer than `limit` exist, all are there.
    Source: Bar-Yossef et al., Counting distinct elements in a data stream, 2002 (k minimum values).

    Args:
        values: float32, shape [kept], in the order of their hashes.
        limit: Most values to keep.
        complete: Whether these are all the distinct values.
    """

    values: Float32Array
    limit: int
    complete: bool = True

    @classmethod
    def empty(cls, limit: int) -> DistinctValues:
        """Return the sample of no values."""
        return cls(np.empty(0, dtype=np.float32), limit, complete=limit > 0)

    def add(self, values: Float32Array) -> DistinctValues:
        """Return the sample with `values` (float32, shape [rows], without NaN) taken in."""
        if not self.limit:
            return DistinctValues(self.values, 0, complete=False)
        merged = np.unique(np.concatenate([self.values, values + np.float32(0)]))
        hashes = hash_values(merged)
        if len(merged) > 2 * self.limit:
            # Sorting what will be cut off is most of the cost of a column's first batch.
            smallest = np.argpartition(hashes, self.limit)[: self.limit + 1]
            merged, hashes = merged[smallest], hashes[smallest]
        merged = merged[np.argsort(hashes, kind="stable")]
        return DistinctValues(merged[: self.limit], self.limit, self.complete and len(merged) <= self.limit)

    def __add__(self, other: DistinctValues) -> DistinctValues:
        both = self.add(other.values)
        return DistinctValues(both.values, both.limit, both.complete and other.complete)


class DistinctColumns:
    """Takes in values of many columns, several of them at a time: of few values each, most of the cost is by call.

    Args:
        columns: Number of columns.
        limit: Most values to keep of each.
    """

    def __init__(self, columns: int, limit: int) -> None:
        self._columns = [_DistinctBuilder(limit) for _ in range(columns)]
        self._limit = limit

    def add(self, first: int, values: Float32Array, missing: npt.NDArray[np.bool_] | None) -> None:
        """Take in values of some columns.

        Args:
            first: Position of the first of these columns.
            values: float32, shape [some columns, rows].
            missing: Which of them are NaN; bool, of the same shape; None for none.
        """
        if not self._limit:
            return
        columns = self._columns[first : first + len(values)]
        highest = np.array([[column.highest_hash] for column in columns], dtype=np.uint32)
        if (highest < _HIGHEST_HASH).any():
            chosen = hash_values(values) <= highest
        else:
            chosen = np.ones(values.shape, dtype=bool)
        if missing is not None:
            chosen &= ~missing
        # NumPy counts a row at a time several times as fast as along an axis.
        found, ends = values[chosen], list(accumulate(int(np.count_nonzero(row)) for row in chosen))
        for column, start, end in zip(columns, [0, *ends], ends, strict=False):
            if start < end:
                column.add(found[start:end])

    def build(self) -> tuple[DistinctValues, ...]:
        """Return the sample of each column of all that was taken in."""
        return tuple(column.build() for column in self._columns)


class _DistinctBuilder:
    """Takes values in when there are enough of them: sorting a sample anew for a few more is what costs.

    Attributes:
        highest_hash: The hash above which a value need not be taken in.
    """

    def __init__(self, limit: int) -> None:
        self.highest_hash = _HIGHEST_HASH
        self._sample = DistinctValues.empty(limit)
        self._waiting: list[Float32Array] = []
        self._count = 0

    def add(self, values: Float32Array) -> None:
        """Take in `values` (float32, shape [rows], without NaN)."""
        # A view would keep the values of every column that came with these, for as long as these wait.
        self._waiting.append(values if self._sample.complete else values.copy())
        self._count += len(values)
        if self._sample.complete or self._count > self._sample.limit:
            self.build()

    def build(self) -> DistinctValues:
        """Return the sample of all that was taken in."""
        if self._waiting:
            self._sample = self._sample.add(np.concatenate(self._waiting))
            self._waiting, self._count = [], 0
            if not self._sample.complete:
                self.highest_hash = hash_values(self._sample.values[-1:])[0]
        return self._sample

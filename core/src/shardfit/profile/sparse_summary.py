"""What one pass learns of sparse features: only values that are there are counted, sampled and compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shardfit.profile.samples import DistinctValues, SampleSpec
from shardfit.row_hash import hash_values
from shardfit.sparse import SparseRows

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

# Sorting distinct values anew for a few more is what costs.
_WAITING_VALUES = 2**20


@dataclass(frozen=True, eq=False)
class SparseDistinct:
    """Samples of the distinct values of many features, each as `DistinctValues` keeps it.

    Args:
        features: Feature of each value, ascending; int32, shape [kept].
        values: float32, shape [kept], within a feature in the order of their hashes.
        complete: Whether these are all the distinct values of a feature; bool, shape [features].
        limit: Most values of a feature.
    """

    features: Int32Array
    values: Float32Array
    complete: npt.NDArray[np.bool_]
    limit: int

    @classmethod
    def empty(cls, features: int, limit: int) -> SparseDistinct:
        """Return the samples of no values."""
        none = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        return cls(*none, np.full(features, limit > 0), limit)

    def add(self, features: Int32Array, values: Float32Array) -> SparseDistinct:
        """Return the samples with values taken in, in any order; int32 and float32, shape [values], without NaN."""
        if not self.limit:
            return SparseDistinct(self.features, self.values, self.complete & False, 0)
        bits = (np.concatenate([self.values, values]) + np.float32(0)).view(np.uint32)
        keys = np.concatenate([self.features, features]).astype(np.uint64) << np.uint64(32)
        keys = np.unique(keys | bits)
        merged = (keys & np.uint64(2**32 - 1)).astype(np.uint32).view(np.float32)
        owners = (keys >> np.uint64(32)).astype(np.int32)
        # Equal features stay together; a hash is of 32 bits, so that both fit into one number to sort by.
        order = np.argsort(owners.astype(np.uint64) << np.uint64(32) | hash_values(merged))
        merged, owners = merged[order], owners[order]
        starts = np.searchsorted(owners, owners)
        kept = np.arange(len(owners)) - starts < self.limit
        complete = self.complete.copy()
        complete[owners[~kept]] = False
        return SparseDistinct(owners[kept], merged[kept], complete, self.limit)

    def __add__(self, other: SparseDistinct) -> SparseDistinct:
        both = self.add(other.features, other.values)
        return SparseDistinct(both.features, both.values, both.complete & other.complete, both.limit)

    def highest_hashes(self) -> npt.NDArray[np.uint32]:
        """Return the hash above which a feature takes no value in; uint32, shape [features]."""
        highest = np.full(len(self.complete), 2**32 - 1, dtype=np.uint32)
        last = np.searchsorted(self.features, np.flatnonzero(~self.complete), side="right") - 1
        if self.limit and len(last):
            highest[~self.complete] = hash_values(self.values[last])
        return highest

    def of(self, start: int, stop: int) -> DistinctValues:
        """Return the sample of the feature whose values stand from `start` to `stop`, which has one or more."""
        complete = bool(self.complete[self.features[start]])
        return DistinctValues(self.values[start:stop], self.limit, complete)


@dataclass(frozen=True, eq=False)
class SparseSummary:
    """What is known of sparse features after one pass. Those of parts add up to that of the whole, bit for bit.

    Args:
        present: Values of each feature; int64, shape [features].
        minimum: Smallest value of each feature, NaN where there is none; float32, shape [features].
        maximum: Largest value of each feature, NaN where there is none; float32, shape [features].
        distinct: Samples of the distinct values.
        sample_rows: Global row number of each sampled value; int64, shape [sampled].
        sample_features: Its feature; int32, shape [sampled].
        sample_values: float32, shape [sampled].
        sample_weights: Weight of its row; float32, shape [sampled].
    """

    present: Int64Array
    minimum: Float32Array
    maximum: Float32Array
    distinct: SparseDistinct
    sample_rows: Int64Array
    sample_features: Int32Array
    sample_values: Float32Array
    sample_weights: Float32Array

    def __add__(self, other: SparseSummary) -> SparseSummary:
        def joined(name: str) -> npt.NDArray[np.generic]:
            return np.concatenate([getattr(self, name), getattr(other, name)])

        return SparseSummary(
            self.present + other.present,
            np.fmin(self.minimum, other.minimum),
            np.fmax(self.maximum, other.maximum),
            self.distinct + other.distinct,
            *(joined(f"sample_{name}") for name in ("rows", "features", "values", "weights")),  # type: ignore[arg-type]
        )

    def without_sample(self) -> SparseSummary:
        """Return the summary without the values that bins are chosen from, which take memory."""
        names = ("sample_rows", "sample_features", "sample_values", "sample_weights")
        # A view would keep all of it.
        none = {name: getattr(self, name)[:0].copy() for name in names}
        return replace(self, distinct=SparseDistinct.empty(len(self.present), 0), **none)


class SparseSummaryBuilder:
    """Makes a summary batch by batch, on the worker that reads the rows.

    Args:
        features: Number of features.
        spec: What to keep.
    """

    def __init__(self, features: int, spec: SampleSpec) -> None:
        self._spec = spec
        self._present = np.zeros(features, dtype=np.int64)
        # Not NaN, which `minimum.at` would keep.
        self._minimum = np.full(features, np.inf, dtype=np.float32)
        self._maximum = np.full(features, -np.inf, dtype=np.float32)
        self._distinct = SparseDistinct.empty(features, spec.distinct)
        self._highest = self._distinct.highest_hashes()
        self._waiting: list[tuple[Int32Array, Float32Array]] = []
        self._count = 0
        self._sample: list[tuple[Int64Array, Int32Array, Float32Array, Float32Array]] = []

    def add(self, row_ids: Int64Array, rows: SparseRows, weights: Float32Array | None) -> None:
        """Take in some rows.

        Args:
            row_ids: Global row numbers; int64, shape [rows].
            rows: As many rows, of finite values.
            weights: float32, shape [rows], or None for 1.
        """
        indices, values = rows.indices, rows.values + np.float32(0)
        kept = self._spec.keeps(row_ids)
        if kept.any():
            self._sample_rows(row_ids, rows, values, weights, kept)
        if self._spec.distinct:
            # A value that is a feature's only one, or at either end, is known.
            known = (values == self._minimum[indices]) | (values == self._maximum[indices])
            new = np.flatnonzero(~known)
            new = new[hash_values(values[new]) <= self._highest[indices[new]]]
            self._waiting.append((indices[new], values[new]))
            self._count += len(new)
            if self._count > max(_WAITING_VALUES, len(self._distinct.values)):
                self._take_in()
        np.add.at(self._present, indices, 1)
        np.minimum.at(self._minimum, indices, values)
        np.maximum.at(self._maximum, indices, values)

    def build(self) -> SparseSummary:
        """Return the summary of everything taken in."""
        self._take_in()
        there = self._present > 0
        kinds = (np.int64, np.int32, np.float32, np.float32)
        none = tuple(np.empty(0, dtype=kind) for kind in kinds)
        sample = [np.concatenate(parts) for parts in zip(none, *self._sample, strict=True)]
        return SparseSummary(
            self._present,
            np.where(there, self._minimum, np.float32("nan")),
            np.where(there, self._maximum, np.float32("nan")),
            self._distinct,
            *sample,
        )

    def _sample_rows(
        self,
        row_ids: Int64Array,
        rows: SparseRows,
        values: Float32Array,
        weights: Float32Array | None,
        kept: npt.NDArray[np.bool_],
    ) -> None:
        owners = rows.row_numbers
        chosen = np.flatnonzero(kept[owners])
        owners = owners[chosen]
        heaviness = np.ones(len(owners), dtype=np.float32) if weights is None else weights[owners]
        self._sample.append((row_ids[owners], rows.indices[chosen], values[chosen], heaviness))

    def _take_in(self) -> None:
        if not self._waiting:
            return
        features, values = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        self._distinct = self._distinct.add(features, values)
        self._highest = self._distinct.highest_hashes()

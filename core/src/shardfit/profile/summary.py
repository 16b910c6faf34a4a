"""What one pass over a shard learns: mergeable, and the same for the whole table however it was divided."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.casts import CategoryMap
from shardfit.exact_sum import LIMBS, exact_parts, exact_total
from shardfit.profile.samples import DistinctColumns, DistinctValues, SampledRows, SampleSpec
from shardfit.profile.sparse_summary import SparseSummary, SparseSummaryBuilder
from shardfit.sparse import SparseRows

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

LARGEST_EXACT_INTEGER = 2**24


@dataclass(frozen=True, eq=False)
class Profile:
    """What is known of a dataset after one pass. Profiles of parts add up to the profile of the whole, bit for bit.

    Args:
        rows: Number of rows.
        sample_ids: Global row numbers of the sampled rows, ascending; int64, shape [sample].
        sample: Their features, categories left missing; float32, shape [sample, features].
        sample_weights: Their weights; float32, shape [sample].
        sample_labels: Their labels; float32, shape [sample, outputs].
        minimum: Smallest value of each feature, NaN where there is none; float32, shape [features].
        maximum: Largest value of each feature, NaN where there is none; float32, shape [features].
        missing: Missing values of each feature; int64, shape [features].
        beyond_float32: Integer values of each feature that float32 cannot tell from their neighbours; int64, shape
            [features].
        distinct: A sample of the distinct values of each feature.
        categories: Categorical column -> its values.
        label_values: A sample of the distinct labels.
        label_minimum: Smallest label, NaN where there is none.
        label_maximum: Largest label, NaN where there is none.
        label_fraction: Smallest label that is no whole number, NaN where there is none.
        weight_maximum: Largest weight, NaN where there is none.
        terms: Exact sums over all rows of what the trainer asked for; int64, shape [terms, limbs].
        content: Digest of what the rows hold, as `shardfit.matrix_reader.digest_content` makes it.
        sparse: What is known of sparse features; the profile then has no others. None where features are dense.
    """

    rows: int
    sample_ids: Int64Array
    sample: Float32Array
    sample_weights: Float32Array
    sample_labels: Float32Array
    minimum: Float32Array
    maximum: Float32Array
    missing: Int64Array
    beyond_float32: Int64Array
    distinct: tuple[DistinctValues, ...]
    categories: Mapping[str, frozenset[str | int | bool]] = field(default_factory=dict)
    label_values: DistinctValues = field(default_factory=lambda: DistinctValues.empty(0))
    label_minimum: float = float("nan")
    label_maximum: float = float("nan")
    label_fraction: float = float("nan")
    weight_maximum: float = float("nan")
    terms: Int64Array = field(default_factory=lambda: np.zeros((0, LIMBS), dtype=np.int64))
    content: int = 0
    sparse: SparseSummary | None = None

    @classmethod
    def empty(cls, features: int, outputs: int, terms: int, spec: SampleSpec) -> Profile:
        """Return the profile of no rows."""
        nothing = np.full(features, np.nan, dtype=np.float32)
        zeros = np.zeros(features, dtype=np.int64)
        return cls(
            rows=0,
            sample_ids=np.zeros(0, dtype=np.int64),
            sample=np.zeros((0, features), dtype=np.float32),
            sample_weights=np.zeros(0, dtype=np.float32),
            sample_labels=np.zeros((0, outputs), dtype=np.float32),
            minimum=nothing,
            maximum=nothing,
            missing=zeros,
            beyond_float32=zeros,
            distinct=tuple(DistinctValues.empty(spec.distinct) for _ in range(features)),
            label_values=DistinctValues.empty(spec.distinct),
            terms=np.zeros((terms, LIMBS), dtype=np.int64),
        )

    @classmethod
    def merge(cls, parts: Iterable[Profile]) -> Profile:
        """Return the profile of all rows of `parts` (at least one) together."""
        parts = tuple(parts)
        if len(parts) == 1:
            return parts[0]
        ids = np.concatenate([part.sample_ids for part in parts])
        # Those of workers, one after another, are in order already.
        order = None if (ids[1:] >= ids[:-1]).all() else np.argsort(ids, kind="stable")

        def sampled(arrays: Iterable[Any]) -> Any:
            joined = np.concatenate(list(arrays))
            return joined if order is None else joined[order]

        def added(name: str) -> Any:
            return reduce(add, (getattr(part, name) for part in parts))

        def least(name: str) -> Any:
            return reduce(np.fmin, (getattr(part, name) for part in parts))

        def most(name: str) -> Any:
            return reduce(np.fmax, (getattr(part, name) for part in parts))

        names = sorted(set().union(*(part.categories for part in parts)))
        none: frozenset[str | int | bool] = frozenset()
        return cls(
            rows=added("rows"),
            sample_ids=sampled([ids]),
            sample=sampled(part.sample for part in parts),
            sample_weights=sampled(part.sample_weights for part in parts),
            sample_labels=sampled(part.sample_labels for part in parts),
            minimum=least("minimum"),
            maximum=most("maximum"),
            missing=added("missing"),
            beyond_float32=added("beyond_float32"),
            distinct=tuple(reduce(add, column) for column in zip(*(part.distinct for part in parts), strict=True)),
            categories={name: none.union(*(part.categories.get(name, none) for part in parts)) for name in names},
            label_values=added("label_values"),
            label_minimum=float(least("label_minimum")),
            label_maximum=float(most("label_maximum")),
            label_fraction=float(least("label_fraction")),
            weight_maximum=float(most("weight_maximum")),
            terms=added("terms"),
            content=added("content") % 2**64,
            sparse=None if any(part.sparse is None for part in parts) else added("sparse"),
        )

    def __add__(self, other: Profile) -> Profile:
        return Profile.merge((self, other))

    def without_sample(self) -> Profile:
        """Return the profile without the values that bins are chosen from, which take memory."""
        sparse = None if self.sparse is None else self.sparse.without_sample()
        # A view would keep all of it.
        return replace(self, sample=self.sample[:0].copy(), sparse=sparse)

    @property
    def gapless(self) -> bool:
        """Whether no value of any feature is missing. Whether a category is missing, only training knows."""
        return self.sparse is None and not self.categories and not self.missing.any()

    @property
    def totals(self) -> tuple[float, ...]:
        """The sums of the terms, each correctly rounded."""
        return tuple(exact_total(parts) for parts in self.terms)

    def category_maps(self) -> dict[str, CategoryMap]:
        """Return one sorted category map for each categorical column."""
        return {name: CategoryMap.of(name, values) for name, values in sorted(self.categories.items())}


class ProfileBuilder:
    """Makes a profile batch by batch, on the worker that reads the rows.

    Args:
        features: Number of feature columns.
        outputs: Number of label columns.
        terms: Number of terms that will be summed.
        spec: What to keep.
        sparse_features: Number of sparse features, which are then the only ones; None where features are dense.
        rows: How many rows will be taken in; with fewer than come, the sample is copied now and then.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        terms: int,
        spec: SampleSpec,
        sparse_features: int | None = None,
        rows: int = 0,
    ) -> None:
        self._spec = spec
        self._sparse = None if sparse_features is None else SparseSummaryBuilder(sparse_features, spec)
        self._empty = Profile.empty(features, outputs, terms, spec)
        self._rows = 0
        self._ids: list[Int64Array] = []
        self._sample = SampledRows(features, spec.most_kept(rows))
        self._weights: list[Float32Array] = []
        self._sample_labels: list[Float32Array] = []
        self._label_minimum = self._label_maximum = float("nan")
        self._label_fraction = self._weight_maximum = float("nan")
        self._minimum, self._maximum = self._empty.minimum.copy(), self._empty.maximum.copy()
        self._missing, self._beyond = self._empty.missing.copy(), self._empty.beyond_float32.copy()
        self._distinct = DistinctColumns(features, spec.distinct)
        self._categories: dict[str, frozenset[str | int | bool]] = {}
        self._labels = self._empty.label_values
        self._terms = self._empty.terms.copy()
        self._content = 0

    def add_features(
        self,
        row_ids: Int64Array,
        blocks: Iterable[Float32Array],
        weights: Float32Array | None,
        integers: Container[int],
    ) -> None:
        """Take in features.

        Args:
            row_ids: Global row numbers; int64, shape [rows].
            blocks: The features, some after the others; float32, shape [some of them, rows], NaN where missing.
            weights: float32, shape [rows], or None for 1.
            integers: Positions of the features that are integers.

        Raises:
            ValueError: The blocks have more features than there are, or fewer.
        """
        self._rows += len(row_ids)
        kept = np.flatnonzero(self._spec.keeps(row_ids))
        self._ids.append(row_ids[kept])
        self._weights.append(weights[kept] if weights is not None else np.ones(len(kept), dtype=np.float32))
        if weights is not None:
            self._weight_maximum = float(np.fmax(self._weight_maximum, weights.max()))
        sampled = self._sample.room_for(len(kept))
        first = 0
        for block in blocks:
            if (stop := first + len(block)) <= len(sampled):
                sampled[first:stop] = block.take(kept, axis=1)
                self._add_block(first, block, integers)
            first = stop
        if first != len(sampled):
            raise ValueError(f"the blocks must have {len(sampled)} features in all, found {first}")

    def add_sparse(self, row_ids: Int64Array, rows: SparseRows, weights: Float32Array | None) -> None:
        """Take in sparse features; arguments as for `SparseSummaryBuilder.add`."""
        self.add_features(row_ids, (), weights, ())
        if self._sparse is not None:
            self._sparse.add(row_ids, rows, weights)

    def _add_block(self, first: int, block: Float32Array, integers: Container[int]) -> None:
        part = slice(first, first + len(block))
        missing = np.isnan(block)
        counts = np.array([np.count_nonzero(row) for row in missing])
        self._missing[part] += counts
        # Of both zeros, which one is found depends on the order of the rows; adding zero leaves one of them.
        self._minimum[part] = np.fmin(self._minimum[part], np.fmin.reduce(block, axis=1) + np.float32(0))
        self._maximum[part] = np.fmax(self._maximum[part], np.fmax.reduce(block, axis=1) + np.float32(0))
        self._distinct.add(first, block, missing if counts.any() else None)
        for j, column in enumerate(block, first):
            if j in integers:
                self._beyond[j] += int(np.count_nonzero(np.abs(column) >= LARGEST_EXACT_INTEGER))

    def add_categories(self, column: str, values: Iterable[str | int | bool]) -> None:
        """Take in the distinct values of a categorical column."""
        self._categories[column] = self._categories.get(column, frozenset()) | frozenset(values)

    def add_labels(self, row_ids: Int64Array, labels: Float32Array) -> None:
        """Take in labels; float32, shape [rows] or [rows, outputs], finite."""
        self._labels = self._labels.add(labels.reshape(-1))
        self._label_minimum = float(np.fmin(self._label_minimum, labels.min()))
        self._label_maximum = float(np.fmax(self._label_maximum, labels.max()))
        fractions = labels[labels != np.round(labels)]
        self._label_fraction = float(np.fmin(self._label_fraction, np.fmin.reduce(fractions, initial=np.nan)))
        self._sample_labels.append(labels.reshape(len(row_ids), -1)[self._spec.keeps(row_ids)])

    def add_content(self, digest: int) -> None:
        """Take in the digest of a batch's content."""
        self._content = (self._content + digest) % 2**64

    def infinite_feature(self) -> int | None:
        """Return the position of a feature that holds an infinite value, or None."""
        found = np.flatnonzero(np.isinf(self._minimum) | np.isinf(self._maximum))
        return int(found[0]) if len(found) else None

    def add_terms(self, terms: npt.NDArray[np.float64]) -> None:
        """Take in what is to be summed over all rows; float64, shape [rows, terms], finite."""
        for i in range(terms.shape[1]):
            self._terms[i] += exact_parts(terms[:, i])

    def build(self) -> Profile:
        """Return the profile of everything taken in."""
        return Profile(
            rows=self._rows,
            sample_ids=np.concatenate([self._empty.sample_ids, *self._ids]),
            sample=self._sample.build(),
            sample_weights=np.concatenate([self._empty.sample_weights, *self._weights]),
            sample_labels=np.concatenate([self._empty.sample_labels, *self._sample_labels]),
            minimum=self._minimum,
            maximum=self._maximum,
            missing=self._missing,
            beyond_float32=self._beyond,
            distinct=self._distinct.build(),
            categories=self._categories,
            label_values=self._labels,
            label_minimum=self._label_minimum,
            label_maximum=self._label_maximum,
            label_fraction=self._label_fraction,
            weight_maximum=self._weight_maximum,
            terms=self._terms,
            content=self._content,
            sparse=None if self._sparse is None else self._sparse.build(),
        )

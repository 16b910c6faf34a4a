"""The area under a curve of float64 scores: exact, with ties and weights, in bounded memory, on any number of workers.

The areas of `shardfit.metrics.area` take scores as float32, where sure probabilities become ties; LightGBM does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.exact_sum import LIMBS, exact_parts, exact_total
from shardfit.metrics.area import SLICE_ROWS
from shardfit.metrics.contract import Floats, Reducer
from shardfit.metrics.curves import CurveSteps

Points = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint64]
StepAreas = Callable[[CurveSteps], Points]

_DIGIT_BITS = 16
_CODE_BITS = 64


@dataclass(frozen=True, slots=True)
class Area:
    """The area under a curve, not yet normalized.

    Args:
        value: The sum over the steps; nan where a score is.
        positives: Positive weight in all.
        negatives: Negative weight in all.
    """

    value: float
    positives: float
    negatives: float


@dataclass(frozen=True, slots=True)
class SortedRows:
    """Rows in the order of their scores from the highest to the lowest, in one canonical order.

    Args:
        codes: Order as the scores do; shape [rows].
        weights: Positive for positive rows, negative for the others; shape [rows].
    """

    codes: Codes
    weights: Points

    @classmethod
    def of(cls, codes: Codes, weights: Points) -> SortedRows:
        """Return the rows in order; equal scores by weight, so that sums are rounded alike on any workers."""
        whole = bool((np.abs(weights) == 1).all())
        order = np.argsort(codes) if whole else np.lexsort((weights, codes))
        return cls(codes[order], weights[order])

    def part(self, first: int, last: int) -> SortedRows:
        """Return the rows whose codes are from `first` to `last`."""
        start = int(np.searchsorted(self.codes, np.uint64(first)))
        stop = int(np.searchsorted(self.codes, np.uint64(last), side="right"))
        return SortedRows(self.codes[start:stop], self.weights[start:stop])

    def totals(self, reducer: Reducer) -> tuple[float, float]:
        """Return the positive and the negative weight of all workers; one call of the reducer."""
        parts = [exact_parts(np.maximum(sign * self.weights, 0.0)) for sign in (1.0, -1.0)]
        total = reducer.sum(np.concatenate(parts))
        return exact_total(total[:LIMBS]), exact_total(total[LIMBS:])

    def gathered(self, reducer: Reducer) -> SortedRows:
        """Return the rows of all workers; two calls of the reducer."""
        if reducer.world_size == 1:
            return self
        ranks = np.zeros(reducer.world_size, dtype=np.int64)
        ranks[reducer.rank] = len(self.codes)
        ranks = reducer.sum(ranks)
        start = int(ranks[: reducer.rank].sum())
        everyone = np.zeros((2, int(ranks.sum())), dtype=np.int64)
        everyone[:, start : start + len(self.codes)] = self.codes.view(np.int64), self.weights.view(np.int64)
        codes, weights = reducer.sum(everyone)
        return SortedRows.of(codes.view(np.uint64), weights.view(np.float64))


@dataclass(frozen=True, slots=True)
class _Slice:
    """A range of codes, and how many rows of all workers lie in it."""

    first: int
    last: int
    rows: int


def curve_area(
    scores: Floats,
    positive: npt.NDArray[np.bool_],
    weights: Floats | None,
    steps_area: StepAreas,
    reducer: Reducer,
    slice_rows: int = SLICE_ROWS,
) -> Area:
    """Return the area under a curve over the rows of all workers.

    Args:
        scores: float64, shape [rows].
        positive: Which rows are positive; shape [rows].
        weights: Not negative; shape [rows], or None for 1 each.
        steps_area: The area of each step.
        reducer: How the workers add up.
        slice_rows: How many rows are gathered at a time; memory is bounded by some 60 bytes for each.
    """
    of_row = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
    used = (of_row > 0) & ~np.isnan(scores)
    signed = np.where(positive, of_row, -of_row)[used]
    rows = SortedRows.of(_descending_codes(scores[used].astype(np.float64)), signed)
    count, unordered = reducer.sum(np.array([len(signed), np.isnan(scores).sum()])).tolist()
    area, at = 0.0, (0.0, 0.0)
    for piece in _slices(rows.codes, count, slice_rows, reducer):
        own = rows.part(piece.first, piece.last)
        if piece.rows > slice_rows:
            tied = own.totals(reducer)
            points = np.array([at[0] + tied[0]]), np.array([at[1] + tied[1]])
        else:
            points = _points(own.gathered(reducer), at)
        steps = CurveSteps(*points, np.append(at[0], points[0][:-1]), np.append(at[1], points[1][:-1]))
        area += float(steps_area(steps).sum())
        at = float(points[0][-1]), float(points[1][-1])
    return Area(float("nan") if unordered else area, *at)


def _descending_codes(scores: Points) -> Codes:
    # Adding 0 makes -0.0 and 0.0 the same.
    bits = (scores + 0.0).view(np.uint64)
    return np.asarray(bits ^ (((bits >> np.uint64(63)) - np.uint64(1)) & np.uint64(2**63 - 1)))


def _slices(codes: Codes, rows: int, slice_rows: int, reducer: Reducer) -> list[_Slice]:
    """Return slices that cover the codes of all workers in order, with more than `slice_rows` only if all are one."""
    slices: list[_Slice] = []
    for piece in _bins(codes, _Slice(0, 2**_CODE_BITS - 1, rows), slice_rows, reducer) if rows else ():
        if slices and slices[-1].rows + piece.rows <= slice_rows:
            slices[-1] = _Slice(slices[-1].first, piece.last, slices[-1].rows + piece.rows)
        else:
            slices.append(piece)
    return slices


def _bins(codes: Codes, whole: _Slice, slice_rows: int, reducer: Reducer) -> Iterator[_Slice]:
    if whole.rows <= slice_rows or whole.first == whole.last:
        yield whole
        return
    shift = (whole.last - whole.first).bit_length() - _DIGIT_BITS
    start = int(np.searchsorted(codes, np.uint64(whole.first)))
    stop = int(np.searchsorted(codes, np.uint64(whole.last), side="right"))
    digits = (codes[start:stop] - np.uint64(whole.first)) >> np.uint64(shift)
    counts = reducer.sum(np.bincount(digits.astype(np.intp), minlength=2**_DIGIT_BITS))
    for digit in np.flatnonzero(counts).tolist():
        first = whole.first + (digit << shift)
        yield from _bins(codes, _Slice(first, first + (1 << shift) - 1, int(counts[digit])), slice_rows, reducer)


def _points(rows: SortedRows, at: tuple[float, float]) -> tuple[Points, Points]:
    """Return the points of the curve after each score, going on from `at`."""
    positive, negative = np.maximum(rows.weights, 0.0), np.maximum(-rows.weights, 0.0)
    last_of_score = np.append(np.flatnonzero(rows.codes[1:] != rows.codes[:-1]), len(rows.codes) - 1)
    positive[0] += at[0]
    negative[0] += at[1]
    return np.cumsum(positive)[last_of_score], np.cumsum(negative)[last_of_score]

"""Areas under the ROC and the precision-recall curve: exact, with ties and weights, in bounded memory."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
from shardfit.exact_sum import LIMBS, exact_parts, exact_total
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, ratio, row_weights, sum_parts, sum_value
from shardfit.metrics.curves import CurveSteps, GroupAreas, group_pr_areas, group_roc_areas, pr_areas, roc_areas
from shardfit.metrics.score_keys import (
    HIGH_CODES,
    Keys,
    count_high_codes,
    gather_keys,
    key_codes,
    key_weights,
    score_keys,
    score_slices,
)

_log = logging.getLogger(__name__)

Points = npt.NDArray[np.float64]

SLICE_ROWS = 2**20
"""How many rows are gathered at a time, unless said otherwise: 8 MiB."""


class AreaMetric(Metric):
    """The area under a curve of binary labels, of each class against the rest, of each output, or of each group.

    Scores are taken as float32. Undefined (nan, with a warning in the log) where there are no positives or no
    negatives, or where a score is nan.

    Several outputs count equally. So do several classes, unless `averages_by_prevalence`. So do groups: weights have no
    effect on them.

    Args:
        slice_rows: How many rows are gathered at a time; memory is bounded by some 40 bytes for each.
    """

    maximize = True
    averages_by_prevalence: ClassVar[bool]
    slice_rows: int

    @abstractmethod
    def curve_area(self, steps: CurveSteps, positives: float) -> float:
        """Return the area of steps of the curve, given the positive weight in all."""

    @abstractmethod
    def normalized(self, area: float, positives: float, negatives: float) -> float:
        """Return the value, at most 1, from the whole area and the positive and negative weight."""

    @abstractmethod
    def group_areas(self, scores: Floats, labels: Floats, groups: Integers) -> GroupAreas:
        """Return the area of each group."""

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the area over the rows of all workers, or the average over all groups that have one."""
        self._check_shapes(predictions, labels, groups)
        if groups is not None:
            value = self._grouped(predictions.reshape(-1), labels.reshape(-1), groups, reducer)
        else:
            value = self._ungrouped(predictions, labels, row_weights(weights, None, len(labels)), reducer)
        if np.isnan(value) and reducer.rank == 0:
            _log.warning("%s is undefined: no rows, only positive or only negative ones, or a score is nan", self.name)
        return value

    def _check_shapes(self, predictions: Floats, labels: Floats, groups: Integers | None) -> None:
        several = predictions.ndim == 2 and predictions.shape[1] > 1
        fits = predictions.shape == labels.shape or labels.size == len(predictions) == len(labels)
        if not fits or (several and groups is not None):
            raise InvalidArgumentError(
                f"evaluating {self.name!r}",
                f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}, "
                f"{'with' if groups is not None else 'without'} groups",
                "Give one score for each row, class or output, and only one for each row of a group.",
            )

    def _ungrouped(self, predictions: Floats, labels: Floats, weights: Floats | None, reducer: Reducer) -> float:
        columns = 1 if predictions.ndim == 1 else predictions.shape[1]
        if columns == 1:
            return self._area(predictions.reshape(-1), labels.reshape(-1), weights, reducer)[0]
        outputs = labels.ndim == 2 and labels.shape[1] == columns
        areas, prevalences = [], []
        for column in range(columns):
            of_column = labels[:, column] if outputs else (labels.reshape(-1) == column).astype(np.float32)
            area, positives = self._area(np.ascontiguousarray(predictions[:, column]), of_column, weights, reducer)
            areas.append(area)
            prevalences.append(positives if self.averages_by_prevalence and not outputs else 1.0)
        weighted = sum(area * prevalence for area, prevalence in zip(areas, prevalences, strict=True))
        return ratio(weighted, sum(prevalences))

    def _grouped(self, scores: Floats, labels: Floats, groups: Integers, reducer: Reducer) -> float:
        areas = self.group_areas(scores, labels, groups)
        values = areas.values[areas.defined]
        if np.isnan(scores).any():
            values = np.array([np.nan])
        total = reducer.sum(np.append(sum_parts(values), np.count_nonzero(areas.defined)))
        return ratio(sum_value(total[:-1]), float(total[-1]))

    def _area(self, scores: Floats, labels: Floats, weights: Floats | None, reducer: Reducer) -> tuple[float, float]:
        """Return the normalized area and the positive weight, over the rows of all workers."""
        unordered = int(np.isnan(scores).any())
        rows = slice(0, 0) if unordered else slice(None)
        keys = score_keys(scores[rows], labels[rows], None if weights is None else weights[rows])
        total = reducer.sum(np.concatenate([count_high_codes(keys), _weight_parts(keys), [unordered]]))
        positives, negatives = _weight_totals(total[HIGH_CODES:-1])
        if total[-1] or positives <= 0 or negatives <= 0:
            return float("nan"), positives
        slices = score_slices(keys, total[:HIGH_CODES], self.slice_rows, reducer)
        ranks = np.zeros((len(slices), reducer.world_size), dtype=np.int64)
        ranks[:, reducer.rank] = [len(piece.of(keys)) for piece in slices]
        ranks = reducer.sum(ranks)
        area, at = 0.0, (0.0, 0.0)
        for piece, counts in zip(slices, ranks, strict=True):
            own = piece.of(keys)
            if piece.rows > self.slice_rows:
                tied = _weight_totals(reducer.sum(_weight_parts(own)))
                points = np.array([at[0] + tied[0]]), np.array([at[1] + tied[1]])
            else:
                points = _points(gather_keys(own, counts, reducer), at)
            steps = CurveSteps(*points, np.append(at[0], points[0][:-1]), np.append(at[1], points[1][:-1]))
            area += self.curve_area(steps, positives)
            at = float(points[0][-1]), float(points[1][-1])
        return self.normalized(area, *at), positives


def _weight_parts(keys: Keys) -> Integers:
    """Return the exact parts of the positive, then of the negative weights; shape [2 * LIMBS]."""
    positive, negative = key_weights(keys)
    return np.concatenate([exact_parts(positive), exact_parts(negative)])


def _weight_totals(parts: Integers) -> tuple[float, float]:
    return exact_total(parts[:LIMBS]), exact_total(parts[LIMBS:])


def _points(keys: Keys, at: tuple[float, float]) -> tuple[Points, Points]:
    """Return the points of the curve after each score of sorted keys, going on from `at`."""
    positive, negative = key_weights(keys)
    codes = key_codes(keys)
    last_of_score = np.append(np.flatnonzero(codes[1:] != codes[:-1]), len(codes) - 1)
    positive[0] += at[0]
    negative[0] += at[1]
    return np.cumsum(positive)[last_of_score], np.cumsum(negative)[last_of_score]


@dataclass(frozen=True)
class RocArea(AreaMetric):
    """`auc`, the area under the ROC curve; classes against the rest are averaged by their weight.

    Args:
        slice_rows: How many rows are gathered at a time.
    """

    slice_rows: int = SLICE_ROWS
    name = "auc"
    averages_by_prevalence = True

    def curve_area(self, steps: CurveSteps, positives: float) -> float:
        """Return the area of steps of the curve, in units of positive times negative weight."""
        return float(roc_areas(steps).sum())

    def normalized(self, area: float, positives: float, negatives: float) -> float:
        """Return the area in units of the largest possible one."""
        return min(area / (positives * negatives), 1.0)

    def group_areas(self, scores: Floats, labels: Floats, groups: Integers) -> GroupAreas:
        """Return the part of each group's pairs that are in order."""
        return group_roc_areas(scores, labels, groups)


@dataclass(frozen=True)
class PrecisionRecallArea(AreaMetric):
    """`aucpr`, the area under the precision-recall curve, interpolated; classes against the rest count equally.

    Args:
        slice_rows: How many rows are gathered at a time.
    """

    slice_rows: int = SLICE_ROWS
    name = "aucpr"
    averages_by_prevalence = False

    def curve_area(self, steps: CurveSteps, positives: float) -> float:
        """Return the area of steps of the curve."""
        return float(pr_areas(steps, positives).sum())

    def normalized(self, area: float, positives: float, negatives: float) -> float:
        """Return the area itself."""
        return min(area, 1.0)

    def group_areas(self, scores: Floats, labels: Floats, groups: Integers) -> GroupAreas:
        """Return the area of each group with positives and negatives; labels must be 0 or 1."""
        return group_pr_areas(scores, labels, groups)

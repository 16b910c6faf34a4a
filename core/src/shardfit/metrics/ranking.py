"""Ranking metrics at k: averages over groups, with XGBoost's definitions, summed without rounding."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, group_weights, ratio, sum_parts, sum_value
from shardfit.metrics.curves import check_binary, group_order, row_groups

DEFAULT_TOP = 32
"""How many rows of a group count where no k is given, as in XGBoost."""

_LARGEST_EXPONENT = 31

Groups = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedRows:
    """Rows in the order of their scores within each group.

    Args:
        labels: Relevance of each row; float64, shape [rows].
        groups: The number of each row's group; int64, shape [rows].
        positions: Its place in the group, from 0; int64, shape [rows].
        sizes: Rows of each group; int64, shape [groups].
    """

    labels: npt.NDArray[np.float64]
    groups: Integers
    positions: Integers
    sizes: Integers

    @classmethod
    def by(cls, scores: Floats, labels: Floats, groups: Integers) -> RankedRows:
        """Return rows ordered by `scores` from the highest to the lowest; ties keep their order."""
        of_row = row_groups(groups)
        positions = np.arange(len(of_row)) - groups[of_row]
        ordered = labels[group_order(scores, groups)].astype(np.float64)
        return cls(ordered, of_row, positions, np.diff(groups))

    def sums(self, values: npt.NDArray[np.float64]) -> Groups:
        """Return the sum of `values` (shape [rows]) for each group, added in order."""
        return np.bincount(self.groups, weights=values, minlength=len(self.sizes)).astype(np.float64)


@dataclass(frozen=True)
class RankingMetric(Metric):
    """The average over groups of how well the scores order the rows of a group; weighted by group.

    Args:
        name: Name of the metric, for example `"ndcg@10"`.
        top: How many rows of each group count.
        empty_value: The value of a group without a relevant row: 1, or 0 for names that end in `-`.
    """

    name: str
    top: int = DEFAULT_TOP
    empty_value: float = 1.0
    maximize = True

    @abstractmethod
    def group_values(self, scores: Floats, labels: Floats, groups: Integers) -> Groups:
        """Return the value of each group; shape [groups].

        Raises:
            InvalidValueError: A label is not a relevance that the metric knows.
        """

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the weighted average over the groups of all workers, nan where nothing has weight."""
        if groups is None or predictions.size != labels.size or groups[-1] != labels.size:
            raise InvalidArgumentError(
                f"evaluating {self.name!r}",
                f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}, "
                f"groups {None if groups is None else 'of ' + repr(int(groups[-1])) + ' rows'}",
                "It needs groups (a group column), one score and one label for each row.",
            )
        of_group = group_weights(weights, groups)
        values = self.group_values(predictions.reshape(-1), labels.reshape(-1), groups) * of_group
        if np.isnan(predictions).any():
            values = np.array([np.nan])
        numerator, denominator = reducer.sum(np.stack([sum_parts(values), sum_parts(of_group)]))
        return min(ratio(sum_value(numerator), sum_value(denominator)), 1.0)


@dataclass(frozen=True)
class Ndcg(RankingMetric):
    """`ndcg@k`, the normalized discounted cumulative gain.

    A group without a relevant row counts with its weight; XGBoost 3.2 leaves the weight of such a group out.

    Args:
        name: Name of the metric.
        top: How many rows of each group count.
        empty_value: The value of a group without a relevant row.
        exponential_gain: Whether the gain is 2**label - 1 (labels are whole numbers from 0 to 31) or the label.
    """

    exponential_gain: bool = True

    def group_values(self, scores: Floats, labels: Floats, groups: Integers) -> Groups:
        """Return the gain of each group in units of the best possible one."""
        wrong = (labels < 0) | ((labels > _LARGEST_EXPONENT) | (labels != np.floor(labels))) & self.exponential_gain
        if wrong.any():
            raise InvalidValueError(
                f"evaluating {self.name!r}",
                f"a label of {float(labels[wrong][0])!r}",
                f"Labels must be whole numbers from 0 to {_LARGEST_EXPONENT}, or 0 or more with ndcg_exp_gain=False.",
            )
        gains = self._gains(RankedRows.by(scores, labels, groups))
        best = self._gains(RankedRows.by(labels, labels, groups))
        values = np.full(len(best), self.empty_value)
        np.divide(gains, best, out=values, where=best > 0)
        return values

    def _gains(self, rows: RankedRows) -> Groups:
        gains = np.exp2(rows.labels) - 1 if self.exponential_gain else rows.labels
        return rows.sums(np.where(rows.positions < self.top, gains / np.log2(rows.positions + 2.0), 0.0))


@dataclass(frozen=True)
class MeanAveragePrecision(RankingMetric):
    """`map@k`, the mean over relevant rows of the precision down to that row; labels are 0 or 1."""

    def group_values(self, scores: Floats, labels: Floats, groups: Integers) -> Groups:
        """Return the average precision of each group."""
        check_binary(self.name, labels)
        rows = RankedRows.by(scores, labels, groups)
        relevant = np.append(0, np.cumsum(rows.labels.astype(np.int64)))
        hits = relevant[1:] - relevant[groups[rows.groups]]
        counted = np.where(rows.positions < self.top, rows.labels, 0.0)
        totals = np.minimum(rows.sums(rows.labels), self.top)
        sums = rows.sums(counted * hits / (rows.positions + 1))
        values = np.full(len(totals), self.empty_value)
        np.divide(sums, totals, out=values, where=totals > 0)
        return values


@dataclass(frozen=True)
class Precision(RankingMetric):
    """`pre@k`, the part of the first k rows, or of all if there are fewer, that are relevant; labels are 0 or 1."""

    def group_values(self, scores: Floats, labels: Floats, groups: Integers) -> Groups:
        """Return the precision of each group."""
        check_binary(self.name, labels)
        rows = RankedRows.by(scores, labels, groups)
        hits = rows.sums(np.where(rows.positions < self.top, rows.labels, 0.0))
        return hits / np.minimum(rows.sizes, self.top)

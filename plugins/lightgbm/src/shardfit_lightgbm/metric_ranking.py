"""`ndcg@k` and `map@k` as LightGBM defines them: scores in float64, weights of groups from those of their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, group_weights, ratio, sum_parts, sum_value
from shardfit.metrics.curves import row_groups
from shardfit.metrics.ranking import MeanAveragePrecision, RankedRows

Groups = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupedNdcg(Metric):
    """`ndcg@k`, the normalized discounted cumulative gain; ties keep the order of the rows.

    A group without a relevant row counts as 1, even where its weight is another: so it is in LightGBM, where the value
    can then exceed 1.

    Args:
        name: Name of the metric, for example `"ndcg@3"`.
        top: How many rows of each group count.
        gains: The gain of each label from 0 on; not negative, never less for a higher label.
    """

    name: str
    top: int
    gains: tuple[float, ...]
    maximize = True

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the weighted average over the groups of all workers, nan where nothing has weight.

        Raises:
            InvalidArgumentError: There are no groups, or not one prediction for each row.
            InvalidValueError: A label is not a whole number that has a gain.
        """
        groups = check_groups(self.name, predictions, labels, groups)
        self._check_labels(labels)
        of_group = mean_weights(weights, groups)
        gained = self._gains(RankedRows.by(score_places(predictions.reshape(-1), groups), labels, groups))
        best = self._gains(RankedRows.by(labels, labels, groups))
        counted = np.ones(len(best))
        np.divide(gained * of_group, best, out=counted, where=best > 0)
        if np.isnan(predictions).any():
            counted = np.array([np.nan])
        numerator, denominator = reducer.sum(np.stack([sum_parts(counted), sum_parts(of_group)]))
        return ratio(sum_value(numerator), sum_value(denominator))

    def _check_labels(self, labels: Floats) -> None:
        wrong = ~((labels >= 0) & (labels < len(self.gains)) & (labels == np.floor(labels)))
        if wrong.any():
            raise InvalidValueError(
                f"evaluating {self.name!r}",
                f"a label of {float(labels[wrong][0])!r}",
                f"Labels must be whole numbers from 0 to {len(self.gains) - 1}; label_gain gives others a gain.",
            )

    def _gains(self, rows: RankedRows) -> Groups:
        gains = np.array(self.gains)[rows.labels.astype(np.intp)]
        return rows.sums(np.where(rows.positions < self.top, gains / np.log2(rows.positions + 2.0), 0.0))


@dataclass(frozen=True)
class GroupedMap(MeanAveragePrecision):
    """`map@k`, where labels above a half are relevant; a group without a relevant row counts as 1."""

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the weighted average over the groups of all workers, nan where nothing has weight.

        Raises:
            InvalidArgumentError: There are no groups, or not one prediction for each row.
        """
        groups = check_groups(self.name, predictions, labels, groups)
        of_group = None if weights is None else mean_weights(weights, groups)
        places = score_places(predictions.reshape(-1), groups)
        if np.isnan(predictions).any():
            places[:] = np.nan
        return super().evaluate(places, (labels > 0.5).astype(np.float32), of_group, groups, reducer=reducer)


def check_groups(name: str, predictions: Floats, labels: Floats, groups: Integers | None) -> Integers:
    """Return the groups, of which there are some.

    Raises:
        InvalidArgumentError: There are none, or they have another number of rows than predictions or labels.
    """
    if groups is None or predictions.size != labels.size or groups[-1] != labels.size:
        raise InvalidArgumentError(
            f"evaluating {name!r}",
            f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}, "
            f"groups {None if groups is None else 'of ' + repr(int(groups[-1])) + ' rows'}",
            "It needs groups (a group column), one score and one label for each row.",
        )
    return groups


def score_places(scores: Floats, groups: Integers) -> npt.NDArray[np.float32]:
    """Return minus the place of each row in its group: scores that no longer have ties, even as float32.

    Args:
        scores: float64, shape [rows].
        groups: Where groups start and the row after the last; int64, shape [groups + 1].
    """
    of_row = row_groups(groups)
    order = np.lexsort((-scores, of_row))
    places = np.empty(len(scores), dtype=np.float32)
    places[order] = groups[of_row] - np.arange(len(scores))
    return places


def mean_weights(weights: Floats | None, groups: Integers) -> Groups:
    """Return the mean weight of the rows of each group, added up in float32 as LightGBM does; shape [groups]."""
    if weights is None or len(weights) != groups[-1]:
        return group_weights(weights, groups)
    sums = np.zeros(len(groups) - 1, dtype=np.float32)
    np.add.at(sums, row_groups(groups), weights.astype(np.float32))
    means: npt.NDArray[np.float32] = np.divide(sums, np.diff(groups), dtype=np.float32)
    return group_weights(means, groups)

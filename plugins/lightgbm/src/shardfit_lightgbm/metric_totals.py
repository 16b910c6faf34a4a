"""Metrics of rows that are not a weighted average: r2, gamma_deviance and cross_entropy_lambda."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidValueError
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, ratio, row_weights, sum_parts, sum_value
from shardfit.metrics.elementwise import AverageMetric
from shardfit_lightgbm.metric_losses import align_positive, align_rows, align_shares, cross_entropy, gamma_deviance

_NO_VARIANCE = 1e-35
# Labels that are all the same differ from their rounded mean by less than this share of it.
_ROUNDING = 2.0**-50


@dataclass(frozen=True)
class GammaDeviance(Metric):
    """`gamma_deviance`, twice the weighted sum over rows: LightGBM does not divide it by anything."""

    name = "gamma_deviance"
    maximize = False

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return twice the sum over the rows of all workers.

        Raises:
            InvalidValueError: A label is 0 or negative.
        """
        predictions, labels = align_positive(self.name, predictions, labels)
        with np.errstate(all="ignore"):
            losses = gamma_deviance(predictions.astype(np.float64), labels.astype(np.float64))
            losses = losses * _weights(weights, groups, len(labels))
        return 2 * sum_value(reducer.sum(sum_parts(losses)))


@dataclass(frozen=True)
class R2(Metric):
    """`r2`, 1 minus the squared errors in units of those of the labels' weighted mean.

    Where all labels are the same it is 1 for exact predictions and 0 for others.
    """

    name = "r2"
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
        """Return the share of the labels' variance that is explained, nan where nothing has weight."""
        predictions, labels = align_rows(self.name, predictions, labels)
        of_row, observed = _weights(weights, groups, len(labels)), labels.astype(np.float64)
        weight, total = (sum_value(part) for part in reducer.sum(_parts(of_row, of_row * observed)))
        mean = ratio(total, weight)
        with np.errstate(all="ignore"):
            errors = of_row * np.square(observed - predictions)
            deviations = of_row * np.square(observed - mean)
        residual, variance = (sum_value(part) for part in reducer.sum(_parts(errors, deviations)))
        if variance < _NO_VARIANCE or variance <= weight * (mean * _ROUNDING) ** 2:
            return 1.0 if residual < _NO_VARIANCE else 0.0
        return 1 - residual / variance


@dataclass(frozen=True)
class CrossEntropyLambda(AverageMetric):
    """`cross_entropy_lambda`, the average over rows of a cross-entropy in which the weights are intensities."""

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the average over the rows of all workers.

        Raises:
            InvalidValueError: A label lies outside [0, 1], or a weight is 0.
        """
        predictions, labels = align_shares(self.name, predictions, labels)
        of_row = _weights(weights, groups, len(labels))
        if not (of_row > 0).all():
            raise InvalidValueError(f"evaluating {self.name!r}", "a weight of 0.0", "Weights must be above 0.")
        with np.errstate(all="ignore"):
            probabilities = 1 - np.exp(-of_row * predictions)
        return super().evaluate(probabilities, labels, None, None, reducer=reducer)


def cross_entropy_lambda() -> CrossEntropyLambda:
    """Return the metric of that name."""
    return CrossEntropyLambda("cross_entropy_lambda", cross_entropy, align_shares)


def _weights(weights: Floats | None, groups: Integers | None, rows: int) -> npt.NDArray[np.float64]:
    of_row = row_weights(weights, groups, rows)
    return np.ones(rows) if of_row is None else of_row.astype(np.float64)


def _parts(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Integers:
    return np.stack([sum_parts(first), sum_parts(second)])

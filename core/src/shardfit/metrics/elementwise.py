"""Metrics that are a weighted average over rows: XGBoost's definitions, summed without rounding.

XGBoost evaluates each row in float32, here it is float64; values agree to about 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.metrics.contract import (
    SUM_PARTS,
    Floats,
    Integers,
    Metric,
    Reducer,
    ratio,
    row_weights,
    sum_parts,
    sum_value,
)

Rows = npt.NDArray[np.float64]
Loss = Callable[[Rows, Rows], Rows]

_TINY = float(np.float32(1e-16))
_SMALL = float(np.float32(1e-6))
# Bounds the temporaries of a metric to a few megabytes, and keeps them in the cache.
_BLOCK_ROWS = 2**16


@dataclass(frozen=True)
class AverageMetric(Metric):
    """The weighted average of a loss over rows, or over rows and outputs.

    Args:
        name: Name of the metric.
        loss: From predictions and labels (float64, the same shape after `align`) to a loss for each; a function that
            can be pickled.
        align: Checks shapes and returns predictions and labels as `loss` takes them, shape [rows, ...].
        finish: From the average to the value; the average itself by default.
        maximize: Whether larger values are better.
    """

    name: str
    loss: Loss
    align: Callable[[str, Floats, Floats], tuple[Floats, Floats]]
    finish: Callable[[float], float] = float
    maximize: bool = False

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the weighted average over the rows of all workers, nan where nothing has weight."""
        weights = row_weights(weights, groups, len(labels))
        predictions, labels = self.align(self.name, predictions, labels)
        parts = np.zeros((2, SUM_PARTS), dtype=np.int64)
        for start in range(0, len(labels), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block_weights = None if weights is None else weights[rows].astype(np.float64)
            # What is undefined becomes nan or infinite, as in XGBoost, and is counted.
            with np.errstate(all="ignore"):
                losses = self.loss(predictions[rows].astype(np.float64), labels[rows].astype(np.float64))
                parts += _weighted_parts(losses.reshape(len(losses), -1), block_weights)
        numerator, denominator = reducer.sum(parts)
        average = ratio(sum_value(numerator), sum_value(denominator))
        return self.finish(average)


def _weighted_parts(losses: Rows, weights: Rows | None) -> Integers:
    """Return the parts of the weighted losses and of the weights, each counted once an output; [2, SUM_PARTS]."""
    rows, outputs = losses.shape
    if weights is None:
        return np.stack([sum_parts(losses.reshape(-1)), sum_parts(np.array([float(rows * outputs)]))])
    weighted = (losses * weights[:, None]).reshape(-1)
    return np.stack([sum_parts(weighted), sum_parts(weights) * outputs])


def align_outputs(name: str, predictions: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return predictions and labels of one shape: one prediction for each label.

    Raises:
        InvalidArgumentError: There are more or fewer predictions than labels.
    """
    if predictions.size != labels.size or len(predictions) != len(labels):
        raise InvalidArgumentError(
            f"evaluating {name!r}",
            f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}",
            "Use merror or mlogloss where there is a prediction for each class.",
        )
    return predictions.reshape(labels.shape), labels


def align_classes(name: str, predictions: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return predictions of shape [rows, classes] and labels of shape [rows].

    Raises:
        InvalidArgumentError: There is not one prediction for each class, or not one label for each row.
        InvalidValueError: A label is not a whole number from 0 to classes - 1.
    """
    if predictions.ndim != 2 or labels.size != len(predictions) or len(labels) != len(predictions):
        raise InvalidArgumentError(
            f"evaluating {name!r}",
            f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}",
            "It needs a probability for each class, shape [rows, classes], and one label for each row.",
        )
    labels = labels.reshape(-1)
    wrong = ~((labels >= 0) & (labels < predictions.shape[1]) & (labels == np.floor(labels)))
    if wrong.any():
        raise InvalidValueError(
            f"evaluating {name!r}",
            f"a label of {float(labels[wrong][0])!r} with {predictions.shape[1]!r} classes",
            "Labels must be whole numbers from 0 to the number of classes - 1.",
        )
    return predictions, labels


def align_quantiles(name: str, predictions: Floats, labels: Floats, quantiles: int) -> tuple[Floats, Floats]:
    """Return predictions of shape [rows, quantiles] and labels of shape [rows, 1].

    Raises:
        InvalidArgumentError: There is not one prediction for each quantile, or not one label for each row.
    """
    if predictions.size != len(labels) * quantiles or labels.size != len(labels):
        raise InvalidArgumentError(
            f"evaluating {name!r}",
            f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}, {quantiles!r} quantiles",
            "It needs a prediction for each quantile, shape [rows, quantiles], and one label for each row.",
        )
    return predictions.reshape(len(labels), quantiles), labels.reshape(-1, 1)


def squared_error(predictions: Rows, labels: Rows) -> Rows:
    """Return (label - prediction)**2."""
    return np.asarray(np.square(labels - predictions))


def squared_log_error(predictions: Rows, labels: Rows) -> Rows:
    """Return (log(1 + label) - log(1 + prediction))**2."""
    return np.asarray(np.square(np.log1p(labels) - np.log1p(predictions)))


def absolute_error(predictions: Rows, labels: Rows) -> Rows:
    """Return |label - prediction|."""
    return np.abs(labels - predictions)


def absolute_percentage_error(predictions: Rows, labels: Rows) -> Rows:
    """Return |label - prediction| / |label|; infinite or nan where the label is 0."""
    return np.abs((labels - predictions) / labels)


def pseudo_huber_error(predictions: Rows, labels: Rows, slope: float) -> Rows:
    """Return slope**2 * (sqrt(1 + (error / slope)**2) - 1)."""
    scaled = np.square((labels - predictions) / slope)
    # The quotient equals sqrt(1 + scaled) - 1 without cancelling digits.
    return np.asarray(slope * slope * (scaled / (np.sqrt(1 + scaled) + 1)))


def log_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of labels in [0, 1]; probabilities are at least 1e-16."""
    positive = np.where(labels == 0, 0.0, labels * np.log(np.maximum(predictions, _TINY)))
    negative = np.where(labels == 1, 0.0, (1 - labels) * np.log(np.maximum(1 - predictions, _TINY)))
    return -positive - negative


def classification_error(predictions: Rows, labels: Rows, threshold: float) -> Rows:
    """Return 1 - label where the prediction is above the threshold (as float32), else the label."""
    return np.where(predictions > float(np.float32(threshold)), 1 - labels, labels)


def poisson_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of counts."""
    means = np.maximum(predictions, _TINY)
    return _log_gamma(labels + 1) + means - np.log(means) * labels


def _log_gamma(values: Rows) -> Rows:
    distinct, where = np.unique(values, return_inverse=True)
    results = [math.lgamma(value) if value > 0 and math.isfinite(value) else math.nan for value in distinct.tolist()]
    return np.array(results, dtype=np.float64)[where].reshape(values.shape)


def gamma_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of a gamma distribution of shape 1."""
    means = np.maximum(predictions, _SMALL)
    return labels / means + np.log(means)


def gamma_deviance(predictions: Rows, labels: Rows) -> Rows:
    """Return twice the log of prediction / label, plus label / prediction, minus 1; 1e-6 is added to both."""
    means, observed = predictions + _SMALL, labels + _SMALL
    return 2 * (np.log(means / observed) + observed / means - 1)


def tweedie_loss(predictions: Rows, labels: Rows, power: float) -> Rows:
    """Return the negative log-likelihood of a Tweedie distribution of variance power in [1, 2)."""
    power, logs = float(np.float32(power)), np.log(predictions)
    return np.exp((2 - power) * logs) / (2 - power) - labels * np.exp((1 - power) * logs) / (1 - power)


def quantile_loss(predictions: Rows, labels: Rows, quantiles: tuple[float, ...]) -> Rows:
    """Return the pinball loss of each quantile."""
    errors = labels - predictions
    levels = np.array(quantiles, dtype=np.float32).astype(np.float64)
    return np.where(errors >= 0, levels * errors, (levels - 1) * errors)


def multiclass_error(predictions: Rows, labels: Rows) -> Rows:
    """Return 1 where the most probable class, the first of equals, is not the label."""
    return np.asarray(np.argmax(predictions, axis=1) != labels, dtype=np.float64)


def multiclass_log_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return minus the log of the probability of the label's class; probabilities are at least 1e-16."""
    chosen = np.take_along_axis(predictions, labels.astype(np.intp)[:, None], axis=1)[:, 0]
    return -np.log(np.maximum(chosen, _TINY))

"""What LightGBM's metrics charge for a row, with its own limits of logarithms, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.metrics.contract import Floats

Rows = npt.NDArray[np.float64]

# LightGBM writes these limits as float32 and compares float64 with them.
_LEAST_PROBABILITY = float(np.float32(1e-15))
_LEAST_MEAN = float(np.float32(1e-10))
_LEAST_CROSS_ENTROPY_PROBABILITY = 1e-12
_DEVIANCE_OFFSET = 1e-9


def align_rows(name: str, predictions: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return predictions and labels of shape [rows].

    Raises:
        InvalidArgumentError: There is not one prediction for each label.
    """
    if predictions.size != labels.size or len(predictions) != len(labels):
        raise InvalidArgumentError(
            f"evaluating {name!r}",
            f"predictions of shape {predictions.shape!r}, labels of shape {labels.shape!r}",
            "It needs one prediction for each row; use 'multi_logloss' or 'multi_error' with several classes.",
        )
    return predictions.reshape(-1), labels.reshape(-1)


def align_positive(name: str, predictions: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return predictions and labels of shape [rows]; labels are above 0.

    Raises:
        InvalidArgumentError: There is not one prediction for each label.
        InvalidValueError: A label is 0 or negative.
    """
    predictions, labels = align_rows(name, predictions, labels)
    _check_labels(name, labels, labels > 0, "above 0")
    return predictions, labels


def align_shares(name: str, predictions: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return predictions and labels of shape [rows]; labels are in [0, 1].

    Raises:
        InvalidArgumentError: There is not one prediction for each label.
        InvalidValueError: A label lies outside [0, 1].
    """
    predictions, labels = align_rows(name, predictions, labels)
    _check_labels(name, labels, (labels >= 0) & (labels <= 1), "in [0, 1]")
    return predictions, labels


def _check_labels(name: str, labels: Floats, right: npt.NDArray[np.bool_], rule: str) -> None:
    if not right.all():
        raise InvalidValueError(
            f"evaluating {name!r}", f"a label of {float(labels[~right][0])!r}", f"Labels must be {rule}."
        )


def quantile_loss(predictions: Rows, labels: Rows, alpha: float) -> Rows:
    """Return the pinball loss of the quantile `alpha`."""
    errors = labels - predictions
    return np.where(errors < 0, (alpha - 1) * errors, alpha * errors)


def absolute_percentage_error(predictions: Rows, labels: Rows) -> Rows:
    """Return |label - prediction| / max(1, |label|)."""
    return np.asarray(np.abs(labels - predictions) / np.maximum(1.0, np.abs(labels)))


def huber_loss(predictions: Rows, labels: Rows, alpha: float) -> Rows:
    """Return half the squared error up to an error of `alpha`, and a line from there on."""
    errors = np.abs(predictions - labels)
    return np.where(errors <= alpha, 0.5 * errors * errors, alpha * (errors - 0.5 * alpha))


def fair_loss(predictions: Rows, labels: Rows, c: float) -> Rows:
    """Return c * |error| - c**2 * log(1 + |error| / c)."""
    errors = np.abs(predictions - labels)
    # log1p would be more exact for small errors; LightGBM's value is this one.
    return np.asarray(c * errors - c * c * np.log(1 + errors / c))


def poisson_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of counts, without the part that depends on the label alone."""
    means = np.maximum(predictions, _LEAST_MEAN)
    return np.asarray(means - labels * np.log(means))


def tweedie_loss(predictions: Rows, labels: Rows, power: float) -> Rows:
    """Return the negative log-likelihood of a Tweedie distribution of variance power in [1, 2); nan for 1."""
    logs = np.log(np.maximum(predictions, _LEAST_MEAN))
    below, above = np.float64(1 - power), np.float64(2 - power)
    return np.asarray(np.exp(above * logs) / above - labels * np.exp(below * logs) / below)


def gamma_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of a gamma distribution of shape 1."""
    rates = -1 / predictions
    return np.asarray(-_log(-rates) - labels * rates)


def gamma_deviance(predictions: Rows, labels: Rows) -> Rows:
    """Return label / prediction, minus its logarithm, minus 1."""
    quotients = labels / (predictions + _DEVIANCE_OFFSET)
    return np.asarray(quotients - _log(quotients) - 1)


def _log(values: Rows) -> Rows:
    return np.where(values > 0, np.log(values), -np.inf)


def binary_log_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return minus the log of the probability of the label's side: above 0, or not."""
    chosen = np.where(labels > 0, predictions, 1 - predictions)
    return -np.log(np.maximum(chosen, _LEAST_PROBABILITY))


def binary_error(predictions: Rows, labels: Rows) -> Rows:
    """Return 1 where the probability is above a half and the label is not above 0, or the other way round."""
    return np.asarray((predictions > 0.5) != (labels > 0), dtype=np.float64)


def class_log_loss(predictions: Rows, labels: Rows) -> Rows:
    """Return minus the log of the probability of the label's class."""
    return -np.log(np.maximum(_of_label(predictions, labels), _LEAST_PROBABILITY))


def class_error(predictions: Rows, labels: Rows, top: int) -> Rows:
    """Return 1 where more than `top` classes, its own included, are at least as probable as the label's."""
    as_probable = predictions >= _of_label(predictions, labels)[:, None]
    return np.asarray(as_probable.sum(axis=1) > top, dtype=np.float64)


def _of_label(predictions: Rows, labels: Rows) -> Rows:
    return np.asarray(np.take_along_axis(predictions, labels.astype(np.intp)[:, None], axis=1)[:, 0])


def cross_entropy(predictions: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of labels in [0, 1]."""
    positive = labels * np.log(np.maximum(predictions, _LEAST_CROSS_ENTROPY_PROBABILITY))
    negative = (1 - labels) * np.log(np.maximum(1 - predictions, _LEAST_CROSS_ENTROPY_PROBABILITY))
    return np.asarray(-positive - negative)


def kullback_leibler(predictions: Rows, labels: Rows) -> Rows:
    """Return the cross-entropy, minus the entropy of the label."""
    return np.asarray(cross_entropy(predictions, labels) + _part_of_entropy(labels) + _part_of_entropy(1 - labels))


def _part_of_entropy(shares: Rows) -> Rows:
    return np.asarray(shares * np.log(np.where(shares > 0, shares, 1.0)))

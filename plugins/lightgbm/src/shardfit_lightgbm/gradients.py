"""Gradients and Hessians of each row, by LightGBM's own formulas, where they depend on that row alone.

LightGBM computes them out of reach, and only to add them up. Here they are computed in NumPy, so that they can be
rounded to a grid first (`summable`). Formulas: `GetGradients` and `ConvertOutput` of LightGBM 4.7's objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit_lightgbm.objectives import ObjectiveFacts

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

Gradients = tuple[Any, Any]
Targets = npt.NDArray[Any]
_Formula = Callable[[Float64Array, Targets, Mapping[str, Any]], Gradients]


def _regression(scores: Float64Array, labels: Targets, _: Mapping[str, Any]) -> Gradients:
    return scores - labels, 1.0


def _huber(scores: Float64Array, labels: Targets, params: Mapping[str, Any]) -> Gradients:
    limit = float(params.get("alpha", 0.9))
    return np.clip(scores - labels, -limit, limit), 1.0


def _fair(scores: Float64Array, labels: Targets, params: Mapping[str, Any]) -> Gradients:
    scale, error = float(params.get("fair_c", 1.0)), scores - labels
    share = scale / (np.abs(error) + scale)
    return error * share, share * share


def _poisson(scores: Float64Array, labels: Targets, params: Mapping[str, Any]) -> Gradients:
    expected = np.exp(scores)
    return expected - labels, expected * np.exp(float(params.get("poisson_max_delta_step", 0.7)))


def _gamma(scores: Float64Array, labels: Targets, _: Mapping[str, Any]) -> Gradients:
    share = labels * np.exp(-scores)
    return 1.0 - share, share


def _tweedie(scores: Float64Array, labels: Targets, params: Mapping[str, Any]) -> Gradients:
    power = float(params.get("tweedie_variance_power", 1.5))
    left, right = labels * np.exp((1.0 - power) * scores), np.exp((2.0 - power) * scores)
    return right - left, (2.0 - power) * right - (1.0 - power) * left


def _cross_entropy(scores: Float64Array, labels: Targets, _: Mapping[str, Any]) -> Gradients:
    share = _logistic(scores)
    hessians = np.subtract(1.0, share)
    hessians *= share
    share -= labels
    return share, hessians


def _binary(scores: Float64Array, labels: Targets, params: Mapping[str, Any]) -> Gradients:
    sigmoid = float(params.get("sigmoid", 1.0))
    if sigmoid == 1.0:
        return _cross_entropy(scores, labels, params)
    share = _logistic(sigmoid * scores)
    return sigmoid * (share - labels), sigmoid * sigmoid * share * (1.0 - share)


def _softmax(scores: Float64Array, labels: Targets, _: Mapping[str, Any]) -> Gradients:
    shares, classes = softmax(scores), scores.shape[1]
    return shares - labels, classes / (classes - 1.0) * shares * (1.0 - shares)


_FORMULAS: Mapping[str, _Formula] = {
    "regression": _regression,
    "huber": _huber,
    "fair": _fair,
    "poisson": _poisson,
    "gamma": _gamma,
    "tweedie": _tweedie,
    "binary": _binary,
    "multiclass": _softmax,
    "multiclassova": _binary,
    "cross_entropy": _cross_entropy,
}
_WEIGHTED_OTHERWISE = "cross_entropy_lambda"

ROW_OBJECTIVES = frozenset({*_FORMULAS, _WEIGHTED_OTHERWISE})
"""Objectives whose gradients depend on the row alone, and whose leaves are sums of them."""


def row_gradients(
    facts: ObjectiveFacts,
    params: Mapping[str, Any],
    scores: Float64Array,
    labels: Float32Array,
    weights: Float32Array | None,
    class_weights: Float64Array | None = None,
) -> Gradients:
    """Return gradients and Hessians, float64, each of the shape of `scores`, or one number for all rows.

    Args:
        facts: An objective of `ROW_OBJECTIVES`.
        params: LightGBM's parameters, by their main names.
        scores: Raw scores; float64, shape [rows], or [rows, classes].
        labels: float32, shape [rows].
        weights: float32, shape [rows], or None for 1.
        class_weights: Weight of rows that are not of a class, and of those that are: float64, shape [classes, 2],
            or None for 1. For `binary` there is one class.
    """
    if facts.name == _WEIGHTED_OTHERWISE:
        return _cross_entropy_lambda(scores, labels.astype(np.float64), weights)
    targets = _targets(facts, scores, labels)
    gradients, hessians = _FORMULAS[str(facts.name)](scores, targets, params)
    heavy = None if weights is None else weights.reshape(-1, *[1] * (scores.ndim - 1)).astype(np.float64)
    if class_weights is not None:
        others, own = class_weights.T if scores.ndim > 1 else class_weights[0]
        by_class = np.where(targets > 0, own, others)
        heavy = by_class if heavy is None else heavy * by_class
    return (gradients, hessians) if heavy is None else (gradients * heavy, hessians * heavy)


def largest_gradients(facts: ObjectiveFacts, params: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return what no gradient and no Hessian of a row of weight 1 exceeds, or None where they have no limit.

    Args:
        facts: An objective of `ROW_OBJECTIVES`, or a function.
        params: LightGBM's parameters, by their main names.
    """
    if facts.name == "multiclass":
        return 1.0, 0.25 * facts.classes / (facts.classes - 1.0)
    if facts.name in {"binary", "multiclassova"}:
        sigmoid = float(params.get("sigmoid", 1.0))
        return sigmoid, 0.25 * sigmoid * sigmoid
    return (1.0, 0.25) if facts.name == "cross_entropy" else None


def softmax(scores: Float64Array) -> Float64Array:
    """Return the share of each class; float64, shape [rows, classes]."""
    shares: Float64Array = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def predictions_of(facts: ObjectiveFacts, scores: Float64Array) -> Float64Array:
    """Return what LightGBM predicts from raw scores; float64, same shape.

    Args:
        facts: An objective of `ROW_OBJECTIVES`, or a function, whose predictions are the scores.
        scores: float64, shape [rows], or [rows, classes].
    """
    name = facts.name
    if name in {"poisson", "gamma", "tweedie"}:
        return np.asarray(np.exp(scores))
    if name in {"binary", "multiclassova"}:
        return _logistic(facts.sigmoid * scores)
    if name == "cross_entropy":
        return _logistic(scores)
    if name == "multiclass":
        return softmax(scores)
    if name == _WEIGHTED_OTHERWISE:
        return np.asarray(np.log1p(np.exp(scores)))
    return np.asarray(np.sign(scores) * scores * scores) if facts.takes_root else scores


def _targets(facts: ObjectiveFacts, scores: Float64Array, labels: Float32Array) -> Targets:
    if facts.classes > 1:
        return np.asarray(labels[:, None] == np.arange(scores.shape[1]), dtype=np.float64)
    # LightGBM keeps roots as float32. Labels of `binary` are 0 and 1: others were refused.
    return np.sign(labels) * np.sqrt(np.abs(labels)) if facts.takes_root else labels


def _cross_entropy_lambda(scores: Float64Array, labels: Float64Array, weights: Float32Array | None) -> Gradients:
    if weights is None:
        return _cross_entropy(scores, labels, {})
    weight, odds = weights.astype(np.float64), np.exp(scores)
    share = -np.expm1(-weight * np.log1p(odds))
    inverse, whole = 1.0 / (1.0 - share), 1.0 + odds
    slope = weight * odds / (whole * whole)
    bend = inverse / (inverse - 1.0) ** 2 * (1.0 + weight * odds - inverse)
    return (1.0 - labels / share) * weight * odds / whole, slope * (1.0 + labels * bend)


def _logistic(scores: Float64Array) -> Float64Array:
    values = np.negative(scores)
    np.exp(values, out=values)
    values += 1.0
    return np.divide(1.0, values, out=values)

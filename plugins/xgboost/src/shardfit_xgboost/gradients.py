"""Gradients whose sums do not depend on the order of the rows, for objectives where XGBoost's own sums do.

XGBoost adds float32 gradients up in float64. That is exact enough while they are of similar size. Those of log-link
objectives span many orders of magnitude, and a row without weight still has a Hessian of 1e-16 in `multi:softprob`:
their sums change in the last bits with the number of workers, and sooner or later a tie falls otherwise. Rounded to a
common grid, which is finer than float32 but for the smallest of them, they add up without rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.metrics.contract import Reducer

Float32Array = npt.NDArray[np.float32]

_FLOAT64_BITS = 53
# Exponents of float32 as `frexp` gives them, subnormals and zero included.
_LOWEST_EXPONENT, _EXPONENTS = -150, 300

LOG_LINK = frozenset({"count:poisson", "reg:gamma", "reg:tweedie"})


def row_gradients(
    name: str,
    margins: Float32Array,
    labels: Float32Array,
    weights: Float32Array | None,
    params: Mapping[str, Any],
) -> tuple[Float32Array, Float32Array]:
    """Return gradients and Hessians of each row, float32, shape of `margins`, by XGBoost's own formulas.

    Args:
        name: An objective of `LOG_LINK`, or one of several classes.
        margins: Raw predictions; float32, shape [rows], or [rows, classes].
        labels: float32, shape [rows].
        weights: float32, shape [rows], or None for 1.
        params: The booster's parameters.
    """
    if name == "count:poisson":
        gradients, hessians = _poisson(margins, labels, float(params.get("max_delta_step", 0.7)))
    elif name == "reg:gamma":
        share = labels * np.exp(-margins)
        gradients, hessians = 1 - share, share
    elif name == "reg:tweedie":
        gradients, hessians = _tweedie(margins, labels, float(params.get("tweedie_variance_power", 1.5)))
    else:
        gradients, hessians = _softmax(margins, labels)
    if weights is not None:
        heavy = weights.reshape(-1, *[1] * (margins.ndim - 1))
        gradients, hessians = gradients * heavy, hessians * heavy
    return gradients.astype(np.float32), hessians.astype(np.float32)


def summable(values: Float32Array, rows: int, reducer: Reducer) -> Float32Array:
    """Return `values` rounded to a grid on which float64 adds up those of all workers without rounding.

    The grid is 2**(exponent of the largest value + bits of `rows` - 53): with a million rows, values of more than
    2**-10 of the largest stay as they are. Called on every worker at the same time.

    Args:
        values: float32, any shape; this worker's.
        rows: Number of rows of all workers.
        reducer: Finds the largest value of all workers.
    """
    peak = np.abs(values).max(initial=0.0)
    if not np.isfinite(peak):
        peak = np.finfo(np.float32).max
    present = np.zeros(_EXPONENTS, dtype=np.int64)
    present[int(np.frexp(peak)[1]) - _LOWEST_EXPONENT] = int(peak > 0)
    largest = np.flatnonzero(reducer.sum(present))
    if not len(largest):
        return values
    exponent = int(largest[-1]) + _LOWEST_EXPONENT + max(rows, 1).bit_length() - _FLOAT64_BITS
    rounded = np.ldexp(np.rint(np.ldexp(values.astype(np.float64), -exponent)), exponent)
    return rounded.astype(np.float32)


def _poisson(margins: Float32Array, labels: Float32Array, step: float) -> tuple[Float32Array, Float32Array]:
    return np.exp(margins) - labels, np.exp(margins + np.float32(step))


def _tweedie(margins: Float32Array, labels: Float32Array, power: float) -> tuple[Float32Array, Float32Array]:
    one, two = np.float32(1 - power), np.float32(2 - power)
    left, right = labels * np.exp(one * margins), np.exp(two * margins)
    return right - left, two * right - one * left


def _softmax(margins: Float32Array, labels: Float32Array) -> tuple[Float32Array, Float32Array]:
    shares = np.exp(margins - margins.max(axis=1, keepdims=True, initial=-np.inf))
    shares /= shares.sum(axis=1, keepdims=True)
    gradients = shares - (labels[:, None] == np.arange(margins.shape[1]))
    return gradients, 2 * shares * (1 - shares)

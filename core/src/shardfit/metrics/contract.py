"""What a metric is: evaluated on each worker's rows, reduced to one value that is the same on every worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.exact_sum import LIMBS, exact_parts, exact_total

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Integers: TypeAlias = npt.NDArray[np.int64]

SUM_PARTS = LIMBS + 3
"""Length of the arrays that `sum_parts` returns: exact parts, then how many values were nan, inf and -inf."""


def _same(values: Integers) -> Integers:
    return values


@dataclass(frozen=True)
class Reducer:
    """How the workers add up their parts of a metric.

    Args:
        rank: This worker's rank, 0 to world_size - 1.
        world_size: Number of workers; 1 by default.
        allreduce: Returns the elementwise sum over all workers of an int64 array of one dimension, equally long on
            each. It does nothing by default, which is right for one worker. Metrics call `sum` instead.
    """

    rank: int = 0
    world_size: int = 1
    allreduce: Callable[[Integers], Integers] = _same

    def sum(self, values: Integers) -> Integers:
        """Return the elementwise sum of `values` over all workers.

        Every worker must call it equally often, in the same order.

        Args:
            values: int64, of any shape, the same on every worker.
        """
        # XGBoost's allreduce returns one dimension whatever it is given.
        flat = np.ascontiguousarray(values, dtype=np.int64).reshape(-1)
        return np.asarray(self.allreduce(flat)).reshape(values.shape)


class Metric(ABC):
    """A number that says how good predictions are; the same bits however rows are dealt to workers.

    Every worker makes the same calls of `reducer.sum` with the same shapes, whatever its rows; a worker without
    rows contributes zeros. A metric holds no state and is pickled to workers.

    Args:
        name: Under which values are reported, for example `"error@0.7"`.
        maximize: Whether larger values are better.
    """

    name: str
    maximize: bool

    @abstractmethod
    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the value over the rows of all workers. Called on every worker at the same time.

        Args:
            predictions: This worker's, in the space that XGBoost's metrics use (probabilities, not margins); float32
                or float64, shape [rows] or [rows, classes]. Without rows, keep the shape: [0] or [0, classes].
            labels: float32, shape [rows] or [rows, outputs].
            weights: Not negative; float32, shape [rows], or [groups] where groups are given. None means 1 each, on
                every worker.
            groups: Where groups start and the row after the last: int64, shape [groups + 1], `[0]` without rows. Each
                group is whole on one worker. None where rows have no groups, on every worker.
            reducer: How the workers add up.

        Raises:
            InvalidArgumentError: The arrays do not fit each other or the metric.
            InvalidValueError: Labels or weights have values that the metric forbids.
        """


def sum_parts(values: npt.NDArray[np.float64]) -> Integers:
    """Return what adds up to the sum of `values`, finite or not; int64, shape [SUM_PARTS].

    Parts of up to 2**31 arrays may be added up elementwise.
    """
    parts = np.zeros(SUM_PARTS, dtype=np.int64)
    finite = np.isfinite(values)
    if not finite.all():
        rest = values[~finite]
        parts[LIMBS:] = np.isnan(rest).sum(), (rest == np.inf).sum(), (rest == -np.inf).sum()
        values = values[finite]
    parts[:LIMBS] = exact_parts(values)
    return parts


def sum_value(parts: Integers) -> float:
    """Return the sum whose parts were added up, rounded once: nan or infinite where any or all values were."""
    nans, positive, negative = (int(count) for count in parts[LIMBS:])
    if nans or (positive and negative):
        return float("nan")
    if positive or negative:
        return float("inf") if positive else float("-inf")
    return exact_total(parts[:LIMBS])


def ratio(numerator: float, denominator: float) -> float:
    """Return the weighted average, nan where nothing has weight."""
    return numerator / denominator if denominator else float("nan")


def row_weights(weights: Floats | None, groups: Integers | None, rows: int) -> Floats | None:
    """Return one weight for each row, given one for each row or for each group.

    Raises:
        InvalidArgumentError: There are as many weights as neither rows nor groups.
        InvalidValueError: A weight is negative or not a number.
    """
    if weights is None or len(_checked(weights)) == rows:
        return weights
    if groups is not None and len(weights) == len(groups) - 1:
        return np.repeat(weights, np.diff(groups))
    raise InvalidArgumentError(
        "weighting a metric", f"{len(weights)!r} weights for {rows!r} rows", "Give one weight for each row or group."
    )


def group_weights(weights: Floats | None, groups: Integers) -> npt.NDArray[np.float64]:
    """Return one weight for each group, given one for each group, or one for each row, the first of its group.

    Raises:
        InvalidArgumentError: There are as many weights as neither rows nor groups.
        InvalidValueError: A weight is negative or not a number.
    """
    if weights is None:
        return np.ones(len(groups) - 1)
    if len(_checked(weights)) == len(groups) - 1:
        return weights.astype(np.float64)
    if len(weights) == groups[-1]:
        return weights[groups[:-1]].astype(np.float64)
    raise InvalidArgumentError(
        "weighting a metric",
        f"{len(weights)!r} weights for {len(groups) - 1!r} groups",
        "Give one weight for each row or group.",
    )


def _checked(weights: Floats) -> Floats:
    wrong = ~(weights >= 0)
    if wrong.any():
        raise InvalidValueError(
            "weighting a metric", f"a weight of {float(weights[wrong][0])!r}", "Weights must be 0 or more."
        )
    return weights


__all__ = [
    "SUM_PARTS",
    "Floats",
    "Integers",
    "Metric",
    "Reducer",
    "group_weights",
    "ratio",
    "row_weights",
    "sum_parts",
    "sum_value",
]

"""A user's own metric, reduced over the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
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

FloatOrArray: TypeAlias = float | npt.NDArray[Any]
MetricFunction: TypeAlias = Callable[[Floats, Floats, Floats | None], tuple[FloatOrArray, FloatOrArray]]

_SIGNIFICANT_DIGITS = 12


@dataclass(frozen=True)
class CustomMetric(Metric):
    """The sum of a function's numerators over the sum of its denominators, over all workers.

    Never an average of averages: a worker counts by its denominator. Where the function returns arrays, one number for
    each row, they are summed without rounding, and the value is the same bits for any number of workers. Where it
    returns its own sums, these are rounded differently for other shards; the value then agrees to about 1e-12 and is
    rounded to 12 significant digits, so that decisions are the same.

    Args:
        name: Name of the metric.
        function: From this worker's predictions, labels and row weights (None for 1 each) to numerator and
            denominator: each a number, or an array of any shape. Never called without rows.
        maximize: Whether larger values are better.
    """

    name: str
    function: MetricFunction
    maximize: bool

    def evaluate(
        self,
        predictions: Floats,
        labels: Floats,
        weights: Floats | None = None,
        groups: Integers | None = None,
        *,
        reducer: Reducer,
    ) -> float:
        """Return the ratio of the sums over all workers, nan where the denominators add up to 0.

        Raises:
            InvalidArgumentError: The function returned something other than two numbers or arrays.
        """
        parts = np.zeros((2, SUM_PARTS), dtype=np.int64)
        summed_by_function = 0
        if len(labels):
            pair = self._call(predictions, labels, row_weights(weights, groups, len(labels)))
            summed_by_function = int(any(array.ndim == 0 for array in pair))
            parts[:] = [sum_parts(array.reshape(-1)) for array in pair]
        total = reducer.sum(np.append(parts.reshape(-1), summed_by_function))
        value = ratio(sum_value(total[:SUM_PARTS]), sum_value(total[SUM_PARTS:-1]))
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if total[-1] else value

    def _call(
        self, predictions: Floats, labels: Floats, weights: Floats | None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        returned = self.function(predictions, labels, weights)
        try:
            numerator, denominator = returned
            return np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"evaluating the custom metric {self.name!r}",
                f"the function returned {returned!r}",
                "Return a numerator and a denominator, each a number or an array.",
            ) from error


def custom_metric(given: object, others: Sequence[Metric], parameter: str) -> Metric:
    """Return what a user passed as `custom_metric` as a metric.

    Args:
        given: A function, whose smaller values are better, or a metric.
        others: Metrics that are evaluated beside it.
        parameter: What those were asked for with, for messages.

    Raises:
        InvalidArgumentError: It is neither, or another metric has its name.
    """
    if isinstance(given, Metric):
        metric = given
    elif callable(given):
        metric = CustomMetric(getattr(given, "__name__", "custom"), given, maximize=False)
    else:
        raise InvalidArgumentError("reading custom_metric", f"found {given!r}", "Pass a function.")
    if metric.name in {other.name for other in others}:
        found = f"{parameter} has a metric called {metric.name!r}, too"
        raise InvalidArgumentError("reading custom_metric", found, "Rename the function.")
    return metric


__all__ = ["CustomMetric", "MetricFunction", "custom_metric"]

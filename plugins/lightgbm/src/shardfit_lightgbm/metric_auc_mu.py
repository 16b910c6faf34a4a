"""`auc_mu`: the areas of all pairs of classes, by Kleiman and Page (2019), as LightGBM evaluates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
from shardfit.metrics.area import SLICE_ROWS
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, ratio, row_weights
from shardfit.metrics.curves import roc_areas
from shardfit.metrics.elementwise import align_classes
from shardfit_lightgbm.metric_curves import curve_area

Columns = npt.NDArray[np.float64]

_SMALLEST = np.finfo(np.float64).tiny
# Scores are found from probabilities up to a rounding; without a grid, it would tell rows apart that are tied.
_GRID = 2.0**27


def softmax_scores(probabilities: Columns) -> Columns:
    """Return the scores of classes, up to a number that is the same for all classes of a row."""
    return np.asarray(np.log(np.maximum(probabilities, _SMALLEST)))


def sigmoid_scores(probabilities: Columns) -> Columns:
    """Return the scores of classes, up to a factor."""
    return softmax_scores(probabilities) - softmax_scores(1 - probabilities)


def raw_scores(predictions: Columns) -> Columns:
    """Return the scores themselves, which a custom objective leaves as they are."""
    return predictions


@dataclass(frozen=True)
class AucMu(Metric):
    """`auc_mu`, the average over pairs of classes of the area between their rows; nan where a class has no rows.

    Args:
        scores: From what LightGBM predicts to its scores; a function that can be pickled.
        class_weights: `auc_mu_weights` by rows of the matrix; empty for 1 off the diagonal.
        slice_rows: How many rows are gathered at a time.
    """

    scores: Callable[[Columns], Columns]
    class_weights: tuple[tuple[float, ...], ...] = ()
    slice_rows: int = SLICE_ROWS
    name = "auc_mu"
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
        """Return the average over the pairs of classes, of the rows of all workers."""
        predictions, labels = align_classes(self.name, predictions, labels)
        weights = row_weights(weights, groups, len(labels))
        scores = self.scores(predictions.astype(np.float64))
        classes = scores.shape[1]
        total = 0.0
        for first, second in combinations(range(classes), 2):
            rows = (labels == first) | (labels == second)
            distances = self._distances(scores[rows], first, second)
            of_row = None if weights is None else weights[rows]
            positive = labels[rows] == first
            area = curve_area(distances, positive, of_row, roc_areas, reducer, self.slice_rows)
            total += ratio(area.value, area.positives * area.negatives)
        return ratio(total, classes * (classes - 1) / 2)

    def _distances(self, scores: Columns, first: int, second: int) -> Columns:
        """Return on which side of the plane between two classes each row lies, and how far; shape [rows]."""
        matrix = np.array(self.class_weights) if self.class_weights else 1 - np.eye(scores.shape[1])
        normal = matrix[first] - matrix[second]
        # A matrix product would round by the number of rows.
        sides = np.zeros(len(scores))
        for column in np.flatnonzero(normal).tolist():
            sides += normal[column] * scores[:, column]
        return np.asarray(np.rint((normal[first] - normal[second]) * sides * _GRID))


def check_plane(class_weights: tuple[tuple[float, ...], ...]) -> None:
    """Check that distances follow from softmax probabilities, which leave a number of each row unknown.

    Raises:
        InvalidArgumentError: The rows of the matrix add up to different numbers.
    """
    sums = [sum(row) for row in class_weights]
    if sums and max(sums) - min(sums) > 1e-9 * max(map(abs, sums)):
        raise InvalidArgumentError(
            "evaluating 'auc_mu' with auc_mu_weights",
            f"rows of the matrix that add up to {sums!r}",
            "They must add up to one number unless the objective is 'multiclassova'; or use 'multi_logloss' or "
            "'multi_error'.",
        )

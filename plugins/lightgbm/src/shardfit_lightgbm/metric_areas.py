"""`auc` and `average_precision` as LightGBM defines them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardfit.metrics.area import SLICE_ROWS
from shardfit.metrics.contract import Floats, Integers, Metric, Reducer, ratio, row_weights
from shardfit.metrics.curves import CurveSteps, roc_areas
from shardfit_lightgbm.metric_curves import Area, Points, curve_area
from shardfit_lightgbm.metric_losses import align_rows


@dataclass(frozen=True)
class Auc(Metric):
    """`auc`, the area under the ROC curve; labels above 0 are positive, and groups have no effect.

    It is 1, as in LightGBM, where there are no positives or no negatives.

    Args:
        slice_rows: How many rows are gathered at a time.
    """

    slice_rows: int = SLICE_ROWS
    name = "auc"
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
        """Return the area over the rows of all workers."""
        predictions, labels = align_rows(self.name, predictions, labels)
        weights = row_weights(weights, groups, len(labels))
        area = curve_area(predictions, labels > 0, weights, self.steps_area, reducer, self.slice_rows)
        if np.isnan(area.value) or (area.positives and area.negatives):
            return self.normalized(area)
        return 1.0

    def steps_area(self, steps: CurveSteps) -> Points:
        """Return the area of each step, in units of positive times negative weight."""
        return roc_areas(steps)

    def normalized(self, area: Area) -> float:
        """Return the area in units of the largest possible one."""
        return ratio(area.value, area.positives * area.negatives)


@dataclass(frozen=True)
class AveragePrecision(Auc):
    """`average_precision`, the precision down to each score, averaged over the positive weight at the scores."""

    name = "average_precision"

    def steps_area(self, steps: CurveSteps) -> Points:
        """Return the positive weight of each step, times the precision down to it."""
        width = steps.positives - steps.previous_positives
        return np.asarray(width * (steps.positives / (steps.positives + steps.negatives)))

    def normalized(self, area: Area) -> float:
        """Return the average over the positive weight."""
        return ratio(area.value, area.positives)

"""The geometry of ROC and precision-recall curves, and the curves of ranking groups, as XGBoost defines them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidValueError
from shardfit.metrics.contract import Floats, Integers
from shardfit.metrics.score_keys import descending_codes

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurveSteps:
    """Consecutive steps of a curve; one a distinct score, from the highest to the lowest.

    Args:
        positives: Cumulated positive weight after each step; shape [steps].
        negatives: The same of negative weight.
        previous_positives: Cumulated positive weight before each step; shape [steps].
        previous_negatives: The same of negative weight.
    """

    positives: Points
    negatives: Points
    previous_positives: Points
    previous_negatives: Points


def roc_areas(steps: CurveSteps) -> Points:
    """Return the area of each step under the ROC curve, in units of positive times negative weight; shape [steps]."""
    width = steps.negatives - steps.previous_negatives
    return width * (steps.positives + steps.previous_positives) * 0.5


def pr_areas(steps: CurveSteps, total_positives: Points | float) -> Points:
    """Return the area of each step under the precision-recall curve, interpolated on the curve; shape [steps].

    The interpolation is that of Keilwagen, Grosse and Grau (2014), https://doi.org/10.1371/journal.pone.0092209.

    Args:
        steps: The steps.
        total_positives: Positive weight in all, or for each step.
    """
    width = steps.positives - steps.previous_positives
    before = steps.previous_positives + steps.previous_negatives
    after = steps.positives + steps.negatives
    # A step without positives has no width; one from the origin, or parallel to the diagonal, has no logarithm.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (steps.negatives - steps.previous_negatives) / width
        offset = (steps.previous_negatives - slope * steps.previous_positives) / total_positives
        recall = width / total_positives
        bend = np.where(offset == 0, 0.0, offset / (slope + 1) * np.log(after / before))
        return np.where(width == 0, 0.0, (recall - bend) / (slope + 1))


@dataclass(frozen=True, slots=True)
class GroupAreas:
    """The area under the curve of each group.

    Args:
        values: The area where it is defined; float64, shape [groups].
        defined: Whether the group has one; shape [groups].
    """

    values: Points
    defined: npt.NDArray[np.bool_]


def group_order(scores: Floats, groups: Integers) -> npt.NDArray[np.intp]:
    """Return the rows ordered by group, then from the highest to the lowest score; ties keep their order."""
    codes = descending_codes(scores.astype(np.float32, copy=False)).astype(np.uint64)
    return np.argsort((row_groups(groups).astype(np.uint64) << np.uint64(32)) | codes, kind="stable")


def row_groups(groups: Integers) -> Integers:
    """Return the number of each row's group; int64, shape [rows]."""
    return np.repeat(np.arange(len(groups) - 1, dtype=np.int64), np.diff(groups))


def group_roc_areas(scores: Floats, labels: Floats, groups: Integers) -> GroupAreas:
    """Return for each group the part of its pairs of rows whose scores are ordered as their labels are.

    As in XGBoost, equal scores count half, pairs of equal labels are pairs too, in the order of the rows, and groups of
    fewer than 3 rows have no area.
    """
    of_row = row_groups(groups)
    by_label = np.asarray(scores)[group_order(labels, groups)]
    later_rows = groups[1:][of_row] - np.arange(len(of_row)) - 1
    half_pairs = np.zeros(len(of_row), dtype=np.int64)
    rows, distance = np.arange(len(of_row)), 0
    while len(rows):
        distance += 1
        rows = rows[later_rows[rows] >= distance]
        first, second = by_label[rows], by_label[rows + distance]
        half_pairs[rows] += 2 * (first > second) + (first == second)
    sizes = np.diff(groups)
    ordered = np.bincount(of_row, weights=half_pairs, minlength=len(sizes))
    return GroupAreas(ordered / np.maximum(sizes * (sizes - 1), 1), sizes >= 3)


def group_pr_areas(scores: Floats, labels: Floats, groups: Integers) -> GroupAreas:
    """Return for each group the area under its precision-recall curve, defined where it has positives and negatives.

    Raises:
        InvalidValueError: A label is neither 0 nor 1.
    """
    check_binary("aucpr", labels)
    order, of_row = group_order(scores, groups), row_groups(groups)
    # Integers, so that what stands before a group on its worker does not move a bit of its area.
    positives = np.append(0, np.cumsum(labels[order] == 1))
    in_group = positives[1:] - positives[groups[of_row]]
    ordered_scores = scores[order]
    changes = (of_row[1:] != of_row[:-1]) | (ordered_scores[1:] != ordered_scores[:-1])
    ends = np.flatnonzero(np.append(changes, True)[: len(of_row)])
    of_step = of_row[ends]
    after = in_group[ends], ends + 1 - groups[of_step] - in_group[ends]
    first = np.append(True, of_step[1:] != of_step[:-1])[: len(ends)]
    before = [np.where(first, 0, np.append(0, values[:-1])[: len(ends)]) for values in after]
    totals = np.diff(positives[groups])
    steps = CurveSteps(*(values.astype(np.float64) for values in (*after, *before)))
    areas = pr_areas(steps, totals[of_step].astype(np.float64))
    defined = (totals > 0) & (totals < np.diff(groups))
    return GroupAreas(np.bincount(of_step, weights=areas, minlength=len(totals)).astype(np.float64), defined)


def check_binary(name: str, labels: Floats) -> None:
    """Check that labels are 0 or 1.

    Raises:
        InvalidValueError: One is not.
    """
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        raise InvalidValueError(
            f"evaluating {name!r} on groups", f"a label of {float(labels[wrong][0])!r}", "Labels must be 0 or 1."
        )

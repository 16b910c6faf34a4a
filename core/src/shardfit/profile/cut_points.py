"""Where a feature may be split: bin boundaries from a merged profile, the same for any number of workers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shardfit.profile import DistinctValues, Profile

Float32Array = npt.NDArray[np.float32]


def choose_cut_points(profile: Profile, feature: int, max_bin: int) -> Float32Array:
    """Return the values that separate the bins of one numeric feature.

    A feature with at most `max_bin` distinct values gets each of them. Otherwise the points are the smallest and the
    largest value of the whole table, weighted quantiles of the sample between them, and, where repeated values leave
    room, quantiles over the *distinct* values, so that rare values beside a frequent one can be told apart.

    Args:
        profile: Of the whole training data.
        feature: Position of the feature.
        max_bin: Most points, 2 or more.

    Returns:
        float32, shape [points], ascending, without repetition; empty where every value is missing.
    """
    if np.isnan(profile.minimum[feature]):
        return np.empty(0, dtype=np.float32)
    distinct = profile.distinct[feature]
    if distinct.complete and len(distinct.values) <= max_bin:
        return np.sort(distinct.values)
    ends = np.array([profile.minimum[feature], profile.maximum[feature]], dtype=np.float32)
    # Adding 0 makes one of both zeros: which of them ends up as the minimum depends on the order of merging.
    points = np.union1d(ends, _sample_quantiles(profile, feature, max_bin - 2)) + np.float32(0)
    return _fill_with_distinct(points, distinct, max_bin)


def _sample_quantiles(profile: Profile, feature: int, count: int) -> Float32Array:
    column = profile.sample[:, feature]
    present = np.flatnonzero(~np.isnan(column))
    if not len(present) or count < 1:
        return np.empty(0, dtype=np.float32)
    weights = profile.sample_weights[present]
    if (weights == weights[0]).all():
        # Without weights the values alone need sorting, which is ten times faster.
        values = np.sort(column[present])
        levels = np.ceil(np.arange(1, count + 1) / (count + 1) * len(values)).astype(np.int64) - 1
        quantiles: Float32Array = np.unique(values[levels])
        return quantiles
    order = present[np.argsort(column[present], kind="stable")]
    heaviness = np.cumsum(profile.sample_weights[order], dtype=np.float64)
    if heaviness[-1] <= 0:
        heaviness = np.arange(1, len(order) + 1, dtype=np.float64)
    levels = np.arange(1, count + 1) / (count + 1) * heaviness[-1]
    positions = np.searchsorted(heaviness, levels, side="left")
    chosen: Float32Array = np.unique(column[order[np.minimum(positions, len(order) - 1)]])
    return chosen


def _fill_with_distinct(points: Float32Array, distinct: DistinctValues, max_bin: int) -> Float32Array:
    room = max_bin - len(points)
    spare = np.setdiff1d(distinct.values, points)
    if room < 1 or not len(spare):
        return points
    positions = np.unique(np.linspace(0, len(spare) - 1, min(room, len(spare))).round().astype(np.int64))
    return np.union1d(points, spare[positions])

"""Where a feature may be split: bin boundaries from a merged profile, the same for any number of workers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shardfit.profile import DistinctValues, Profile
from shardfit.profile.sparse_summary import SparseSummary

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
    column, weights = profile.sample[:, feature], profile.sample_weights
    if (missing := np.isnan(column)).any():
        column, weights = column[~missing], weights[~missing]
    ends = np.array([profile.minimum[feature], profile.maximum[feature]], dtype=np.float32)
    return _choose(ends, profile.distinct[feature], column, weights, max_bin)


def choose_sparse_cut_points(summary: SparseSummary, max_bin: int) -> tuple[Float32Array, ...]:
    """Return the values that separate the bins of each sparse feature, as `choose_cut_points` does.

    Args:
        summary: Of the whole training data.
        max_bin: Most points of a feature, 2 or more.
    """
    features, distinct = len(summary.present), summary.distinct
    # By feature, then by row: the order of the sample must not depend on who read what.
    order = np.lexsort((summary.sample_rows, summary.sample_features))
    values, weights = summary.sample_values[order], summary.sample_weights[order]
    bounds = np.arange(features + 1)
    sampled = np.searchsorted(summary.sample_features[order], bounds)
    known = np.searchsorted(distinct.features, bounds)
    ends = np.stack([summary.minimum, summary.maximum], axis=1)
    # Most features of many have few values, and a look at each of them on its own would take a minute a million.
    few = (distinct.complete & (np.diff(known) <= max_bin)).tolist()
    ascending = distinct.values[np.lexsort((distinct.values, distinct.features))]
    places = known.tolist()

    def points_of(j: int) -> Float32Array:
        start, stop = places[j], places[j + 1]
        if few[j]:
            return ascending[start:stop]
        part = slice(sampled[j], sampled[j + 1])
        return _choose(ends[j], distinct.of(start, stop), values[part], weights[part], max_bin)

    return tuple(map(points_of, range(features)))


def _choose(
    ends: Float32Array, distinct: DistinctValues, sample: Float32Array, weights: Float32Array, max_bin: int
) -> Float32Array:
    if distinct.complete and len(distinct.values) <= max_bin:
        return np.sort(distinct.values)
    # Adding 0 makes one of both zeros: which of them ends up as the minimum depends on the order of merging.
    points = np.union1d(ends, _sample_quantiles(sample, weights, max_bin - 2)) + np.float32(0)
    return _fill_with_distinct(points, distinct, max_bin)


def _sample_quantiles(sample: Float32Array, weights: Float32Array, count: int) -> Float32Array:
    if not len(sample) or count < 1:
        return np.empty(0, dtype=np.float32)
    if (weights == weights[0]).all():
        # Without weights the values alone need sorting, which is ten times faster.
        values = np.sort(sample)
        levels = np.ceil(np.arange(1, count + 1) / (count + 1) * len(values)).astype(np.int64) - 1
        quantiles: Float32Array = np.unique(values[levels])
        return quantiles
    order = np.argsort(sample, kind="stable")
    heaviness = np.cumsum(weights[order], dtype=np.float64)
    if heaviness[-1] <= 0:
        heaviness = np.arange(1, len(order) + 1, dtype=np.float64)
    levels = np.arange(1, count + 1) / (count + 1) * heaviness[-1]
    positions = np.searchsorted(heaviness, levels, side="left")
    chosen: Float32Array = np.unique(sample[order[np.minimum(positions, len(order) - 1)]])
    return chosen


def _fill_with_distinct(points: Float32Array, distinct: DistinctValues, max_bin: int) -> Float32Array:
    room = max_bin - len(points)
    spare = np.setdiff1d(distinct.values, points)
    if room < 1 or not len(spare):
        return points
    positions = np.unique(np.linspace(0, len(spare) - 1, min(room, len(spare))).round().astype(np.int64))
    return np.union1d(points, spare[positions])

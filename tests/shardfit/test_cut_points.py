"""Cut points: few, ascending, from the smallest to the largest value, with room for rare values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardfit.profile import Profile, ProfileBuilder, SampleSpec
from shardfit.profile.cut_points import choose_cut_points

Array = npt.NDArray[Any]

VALUES = st.one_of(st.sampled_from([0.0, -0.0, 1.0, float("nan"), -1e30, 1e30]), st.floats(-100, 100, width=32))


def profile_of(column: Array, fraction: float = 1.0, distinct: int = 512, weights: Array | None = None) -> Profile:
    builder = ProfileBuilder(1, 1, 0, SampleSpec(0, fraction, distinct))
    ids = np.arange(len(column))
    heavy = None if weights is None else weights.astype(np.float32)
    builder.add_features(ids, [column.astype(np.float32)[np.newaxis]], heavy, [])
    return builder.build()


def points_of(column: Array, max_bin: int, **changes: Any) -> Array:
    return choose_cut_points(profile_of(column, **changes), 0, max_bin)


@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=VALUES.map(np.float32), fill=st.nothing()),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(1, 3),
)
def test_cut_points_are_few_ascending_distinct_values_from_the_smallest_to_the_largest(
    column: Array, max_bin: int, fraction: float, room: int
) -> None:
    points = points_of(column, max_bin, fraction=fraction, distinct=room * max_bin)
    present = np.unique(column[~np.isnan(column)] + np.float32(0))
    assert points.dtype == np.float32
    assert len(points) <= max_bin
    assert (np.diff(points) > 0).all()
    assert np.isin(points, present).all()
    if not len(present):
        assert not len(points)
        return
    assert points[0] == present[0]
    assert points[-1] == present[-1]
    if len(present) <= max_bin:
        np.testing.assert_array_equal(points, present)


def test_a_column_without_values_has_no_cut_point() -> None:
    assert len(points_of(np.full(10, np.nan), 16)) == 0


def test_both_zeros_are_one_cut_point_with_the_same_bits_in_either_order() -> None:
    one, other = (points_of(np.array(values), 8) for values in ([-0.0, 0.0, 1.0], [0.0, -0.0, 1.0]))
    assert one.tobytes() == other.tobytes() == np.array([0, 1], dtype=np.float32).tobytes()
    many = np.arange(50.0)
    one, other = (points_of(np.concatenate([zeros, many]), 8) for zeros in ([-0.0, 0.0], [0.0, -0.0]))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("fraction", [0.01, 1.0])
@pytest.mark.parametrize("rare", [3, 40])
def test_rare_values_beside_a_frequent_zero_get_cut_points(rare: int, fraction: float) -> None:
    column = np.zeros(20_000)
    column[:: 20_000 // rare][:rare] = np.arange(1, rare + 1)
    np.testing.assert_array_equal(points_of(column, 256, fraction=fraction), np.arange(len(np.unique(column))))


def test_many_rare_values_beside_a_frequent_zero_are_told_apart() -> None:
    random = np.random.default_rng(0)
    column = np.zeros(100_000)
    column[::50] = random.lognormal(size=2_000)
    points = points_of(column, 64, distinct=128)
    above = points[points > 0]
    assert len(above) >= 50
    # Spread over the distinct values rather than heaped on one side.
    ranks = np.searchsorted(np.sort(column[column > 0]), above) / 2_000
    assert np.diff(ranks).max() < 0.2


def test_cut_points_of_many_values_have_about_the_same_weight_between_them() -> None:
    random = np.random.default_rng(1)
    column, weights = random.normal(size=50_000), random.random(50_000)
    for weighting in (None, weights):
        points = points_of(column, 33, weights=weighting)
        assert len(points) == 33
        heights, _ = np.histogram(column, points.astype(np.float64), weights=weighting)
        assert heights.max() < 1.1 * heights.sum() / 32
        assert heights.min() > 0.9 * heights.sum() / 32


def test_weights_draw_cut_points_towards_heavy_rows() -> None:
    column = np.arange(10_000.0)
    points = points_of(column, 20, weights=np.where(column < 5_000, 9.0, 1.0))
    assert np.count_nonzero(points < 5_000) >= 16


def test_rows_without_weight_still_get_cut_points() -> None:
    points = points_of(np.arange(1_000.0), 10, weights=np.zeros(1_000))
    assert len(points) == 10


def test_the_choice_does_not_depend_on_how_the_profile_was_merged() -> None:
    column = np.random.default_rng(2).normal(size=9_000).astype(np.float32)
    spec, ids = SampleSpec(3, 0.2, 64), np.arange(9_000)

    def part(rows: Array) -> Profile:
        builder = ProfileBuilder(1, 1, 0, spec)
        builder.add_features(rows, [column[np.newaxis, rows]], None, [])
        builder.add_labels(rows, column[rows])
        return builder.build()

    whole = choose_cut_points(part(ids), 0, 32)
    for workers in (2, 3, 7):
        merged = Profile.merge(part(rows) for rows in reversed(np.array_split(ids, workers)))
        assert choose_cut_points(merged, 0, 32).tobytes() == whole.tobytes()


def test_two_bins_have_the_smallest_and_the_largest_value() -> None:
    assert points_of(np.arange(100.0), 2).tolist() == [0, 99]

"""Tables of codes: the interval that a search finds, for any cut points and any values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shardfit_lightgbm.bin_codes import CodeTable, table_bits

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MISSING = 77


def searched(values: npt.NDArray[np.float32], bounds: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    found = np.searchsorted(bounds, values, side="left")
    return np.where(np.isnan(values), MISSING, found)


def check(bounds: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):
        around = [np.nextafter(bounds, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([values, bounds, *around, np.float32([0.0, -0.0, np.nan, -np.nan])])
    for bits in (1, 10, 16):
        table = CodeTable.of(bounds, np.arange(len(bounds) + 1, dtype=np.uint32), MISSING, bits)
        np.testing.assert_array_equal(table.look_up(values), searched(values, bounds))


@given(
    st.lists(FINITE, min_size=1, max_size=300, unique=True),
    arrays.arrays(np.float32, st.integers(0, 400), elements=st.floats(width=32)),
)
@example([0.0], np.float32([-1e-45, 1e-45]))
@example([-0.0], np.float32([-1e-45, 1e-45]))
@example([float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)], np.float32([np.inf, -np.inf, 0.0]))
def test_a_table_finds_what_a_search_finds(points: list[float], values: npt.NDArray[np.float32]) -> None:
    check(np.unique(np.array(points, dtype=np.float32)), values)


@given(st.floats(0, 2.0**100, width=32), st.integers(0, 10**6), st.integers(1, 2_000), st.integers(1, 1_000))
def test_crowded_cut_points_beside_one_far_away(near: float, seed: int, points: int, apart: int) -> None:
    random = np.random.default_rng(seed)
    crowd = np.float32(near).view(np.int32) + np.arange(points, dtype=np.int32) * apart
    bounds = np.unique(np.append(crowd.view(np.float32), np.float32(-3e38)))
    values = (crowd + random.integers(-apart, apart + 1, points, dtype=np.int32)).astype(np.int32).view(np.float32)
    check(bounds[np.isfinite(bounds)], values)


@pytest.mark.parametrize("points", [32_767, 32_768, 100_000])
def test_as_many_cut_points_as_categories_may_have(points: int) -> None:
    random = np.random.default_rng(0)
    bounds = np.unique(random.normal(size=points).astype(np.float32))
    check(bounds, random.normal(size=5_000).astype(np.float32))


def test_tables_of_all_features_take_little_together() -> None:
    assert [table_bits(features) for features in (1, 64, 65, 1_000, 10**6)] == [16, 16, 15, 12, 10]

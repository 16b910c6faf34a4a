"""Hashes of rows and values: the same everywhere, uniform, and unrelated for other seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardfit.row_hash import hash_rows, hash_values, rows_below

ROWS = np.arange(100_000)


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(0, 2**62)), st.lists(st.integers(-5, 2**40)))
def test_the_hash_of_a_row_does_not_depend_on_the_rows_beside_it(row_ids: np.ndarray, seeds: list[int]) -> None:
    together = hash_rows(row_ids, *seeds)
    alone = [hash_rows(row_ids[i : i + 1], *seeds)[0] for i in range(len(row_ids))]
    assert together.tolist() == alone


def test_hashes_never_change_because_stored_samples_and_subsamples_rest_on_them() -> None:
    assert hash_rows(np.array([0, 1, 2**40])).tolist() == [0, 16294208416658607535, 16789984263138438007]
    assert hash_rows(np.array([0, 1]), 7, 3).tolist() == [13746544968456734245, 1339324923892865920]
    assert hash_values(np.array([1.0, -2.5], dtype=np.float32)).tolist() == [2980753846, 3941434353]


def test_different_rows_have_different_hashes() -> None:
    assert len(np.unique(hash_rows(ROWS, 5))) == len(ROWS)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seeds", [(), (0,), (1,), (0, 7, 1), (2**31 - 1,)])
def test_a_fraction_of_the_rows_lies_below_its_bound(fraction: float, seeds: tuple[int, ...]) -> None:
    below = np.count_nonzero(hash_rows(ROWS, *seeds) < rows_below(fraction))
    # Five standard deviations of a binomial count.
    assert abs(below - fraction * len(ROWS)) <= 5 * np.sqrt(len(ROWS) * fraction * (1 - fraction)) + 1


@pytest.mark.parametrize(
    ("one", "other"), [((0,), (1,)), ((3, 0), (3, 1)), ((0, 1), (1, 0)), ((), (0,)), ((5, 2, 1), (5, 3, 1))]
)
def test_other_seeds_choose_other_rows_independently(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    half = rows_below(0.5)
    both = np.count_nonzero((hash_rows(ROWS, *one) < half) & (hash_rows(ROWS, *other) < half))
    assert abs(both - len(ROWS) / 4) < 5 * np.sqrt(len(ROWS) * 3 / 16)


def test_neighbouring_rows_are_chosen_independently() -> None:
    chosen = hash_rows(ROWS, 0, 0, 1) < rows_below(0.5)
    for step in (1, 2, 64, 1000):
        assert abs(np.count_nonzero(chosen[step:] & chosen[:-step]) - len(ROWS) / 4) < 5 * np.sqrt(len(ROWS) * 3 / 16)


@given(hnp.arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=False)))
def test_values_have_equal_hashes_if_and_only_if_they_are_equal(values: np.ndarray) -> None:
    hashes = hash_values(values)
    np.testing.assert_array_equal(hashes[:, None] == hashes, values[:, None] == values)


def test_hashing_values_leaves_them_as_they_are() -> None:
    values = np.array([1.0, -0.0, 3.5], dtype=np.float32)
    before = values.tobytes()
    hash_values(values)
    assert values.tobytes() == before

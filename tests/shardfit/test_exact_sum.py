import math
import pickle
from fractions import Fraction
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.exact_sum import LIMBS, ExactSum, carry, exact_parts, exact_total

finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
values = st.lists(finite, max_size=60)
extremes = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308, 0.1]


def array(numbers: list[float]) -> npt.NDArray[np.float64]:
    return np.array(numbers, dtype=np.float64)


def rounded_once(numbers: list[float]) -> float:
    total = sum(map(Fraction, numbers), Fraction())
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@given(values)
def test_the_total_is_the_true_sum_rounded_once(numbers: list[float]) -> None:
    assert exact_total(exact_parts(array(numbers))) == rounded_once(numbers)


@given(st.lists(st.sampled_from(extremes), max_size=40))
def test_the_total_is_right_at_the_ends_of_the_range(numbers: list[float]) -> None:
    assert exact_total(exact_parts(array(numbers))) == rounded_once(numbers)


@given(st.lists(st.one_of(st.integers(-(2**52), 2**52), st.sampled_from([0, 1, -1, 0.5])).map(float), max_size=40))
def test_whole_numbers_have_the_limbs_that_others_have(numbers: list[float]) -> None:
    half = exact_parts(array([*numbers, 0.5])) + exact_parts(array([-0.5]))
    assert exact_parts(array(numbers)).tolist() == carry(half).tolist()
    assert exact_total(exact_parts(array(numbers))) == rounded_once(numbers)


@given(values, st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_order_and_any_shards_give_the_same_limbs(numbers: list[float], random: Random, shards: int) -> None:
    shuffled = random.sample(numbers, len(numbers))
    cuts = sorted(random.randint(0, len(numbers)) for _ in range(shards - 1))
    pieces = np.split(array(shuffled), cuts)
    added = np.sum([exact_parts(piece) for piece in pieces], axis=0)
    assert np.array_equal(carry(added), exact_parts(array(numbers)))
    assert exact_total(added) == exact_total(exact_parts(array(numbers)))


def test_many_rows_of_many_magnitudes_agree_with_fsum() -> None:
    random = np.random.default_rng(1)
    numbers = random.standard_normal(300_001) * np.exp2(random.integers(-1060, 960, 300_001))
    assert exact_total(exact_parts(numbers)) == math.fsum(numbers)


def test_values_that_cancel_leave_exactly_what_is_small() -> None:
    assert exact_total(exact_parts(array([1e300, 1.0, -1e300, 1e-300]))) == 1.0
    assert exact_total(exact_parts(array([1e300, -1e300, 5e-324]))) == 5e-324


def test_a_total_beyond_the_largest_float_is_infinite() -> None:
    assert exact_total(exact_parts(np.full(1000, 1.7e308))) == math.inf
    assert exact_total(exact_parts(np.full(1000, -1.7e308))) == -math.inf


def test_parts_survive_an_excursion_beyond_the_largest_float() -> None:
    largest = exact_parts(np.full(1000, 1.7e308))
    assert exact_total(largest + exact_parts(np.append(np.full(1000, -1.7e308), 3.0))) == 3.0


def test_parts_of_two_to_the_31_arrays_can_be_added() -> None:
    parts = exact_parts(array([-1.0, 0.1]))
    assert exact_total(parts * 2**31) == rounded_once([-1.0 * 2**31, 0.1 * 2**31])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        exact_parts(array([1.0, wrong]))


def test_no_values_have_zero_parts() -> None:
    assert np.array_equal(exact_parts(array([])), np.zeros(LIMBS))


def test_values_may_have_any_shape_and_memory_layout() -> None:
    table = np.arange(12.0).reshape(3, 4) / 7
    assert np.array_equal(exact_parts(table.T), exact_parts(table))
    assert np.array_equal(exact_parts(table[:, ::2]), exact_parts(table[:, ::2].copy()))


@given(values, values)
def test_exact_sums_add_up_pickle_and_go_through_arrays(first: list[float], second: list[float]) -> None:
    both = ExactSum.of(array(first)) + ExactSum.of(array(second))
    assert both == ExactSum.of(array(first + second))
    assert hash(both) == hash(ExactSum.of(array(first + second)))
    assert pickle.loads(pickle.dumps(both)) == both
    assert ExactSum.from_array(both.as_array()) == both
    assert both.total == rounded_once(first + second)


def test_exact_sums_of_different_values_differ() -> None:
    assert ExactSum.of(array([0.1])) != ExactSum.of(array([0.1, 5e-324]))
    assert ExactSum() != 0


def test_an_exact_sum_can_not_be_altered() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ExactSum().as_array()[0] = 1

"""Sums of rounded gradients: the same float64 in any order and division, and hardly any other values."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit_lightgbm import summable_objective
from shardfit_lightgbm.summable import largest_of, round_to_step, step_of
from tests.shardfit_lightgbm.training import table, trained

Float32Array = npt.NDArray[np.float32]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
values = st.lists(st.one_of(floats, st.floats(-1, 1, width=32)), min_size=1, max_size=60)


def on_grid(numbers: list[float], rows: int) -> tuple[Float32Array, Float32Array, float]:
    given = np.array(numbers, dtype=np.float32)
    step = step_of(largest_of(given), rows)
    rounded = given.copy()
    round_to_step(rounded, step, rounded)
    return given, rounded, step


def added_up(terms: list[float]) -> float:
    total = 0.0
    for term in terms:
        total += term
    return total


@given(values, st.integers(0, 2**40), st.randoms(use_true_random=False), st.data())
def test_any_order_and_any_division_give_the_same_sum(numbers: list[float], more: int, random: Any, data: Any) -> None:
    _, rounded, _ = on_grid(numbers, len(numbers) + more)
    terms = [float(value) for value in rounded]
    exact = sum(map(Fraction, terms), Fraction())
    random.shuffle(terms)
    cut = data.draw(st.integers(0, len(terms)))
    assert added_up(terms) == exact
    assert added_up(terms[:cut]) + added_up(terms[cut:]) == exact
    assert exact - Fraction(added_up(terms[:cut])) == added_up(terms) - added_up(terms[:cut])


@given(values, st.integers(1, 2**40))
def test_values_move_by_half_a_step_at_most_and_large_ones_not_at_all(numbers: list[float], rows: int) -> None:
    rows = max(rows, len(numbers))
    given, rounded, step = on_grid(numbers, rows)
    distance = np.abs(rounded.astype(np.float64) - given)
    assert (distance <= step / 2).all()
    assert step <= 2.0 * largest_of(given) * 2.0 ** (max(rows.bit_length(), 4) - 53)
    assert not distance[np.abs(given) >= 2.0**24 * step].any()
    assert largest_of(rounded) <= 2.0 ** math.frexp(largest_of(given))[1]


@given(st.integers(1, 2**20), st.sampled_from([1e-45, 1.0, 3.4028234663852886e38]))
def test_as_many_rows_of_the_largest_value_add_up_to_less_than_the_limit(rows: int, largest: float) -> None:
    _, rounded, step = on_grid([largest], rows)
    assert Fraction(float(rounded[0])) * rows <= Fraction(step) * 2**53


def test_values_that_have_no_exact_sum_do_not_stop_it() -> None:
    assert step_of(0.0, 10) == 0.0
    assert step_of(math.inf, 10) == step_of(math.nan, 10) == step_of(float(np.finfo(np.float32).max), 10)
    _, rounded, _ = on_grid([1.0, math.nan, -math.inf], 3)
    assert np.isnan(rounded[1])
    assert np.isneginf(rounded[2])
    assert math.isnan(largest_of(np.array([1, math.nan], dtype=np.float32)))
    assert largest_of(np.empty(0, dtype=np.float32)) == 0.0


def test_workers_grow_the_same_trees_from_sixty_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(60_000)

    def texts() -> list[str]:
        wide = {"num_iterations": 12, "num_leaves": 127}
        return [trained(rows, workers, params=wide).model.text for workers in (1, 3)]

    alone, other = texts()
    assert other == alone

    def leave(values: Any, _: float, out: Float32Array) -> None:
        out[...] = values

    monkeypatch.setattr(summable_objective, "round_to_step", leave)
    alone, other = texts()
    assert other != alone

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import InvalidArgumentError
from shardfit.metrics import EarlyStopping

scores = st.lists(st.floats(-5, 5).map(lambda score: round(score, 1)), min_size=1, max_size=30)


def after(state: EarlyStopping, values: list[float]) -> EarlyStopping:
    for index, value in enumerate(values):
        state = state.update(index, value)
        if state.stop:
            break
    return state


def test_it_stops_after_so_many_rounds_without_improvement() -> None:
    state = after(EarlyStopping(2, maximize=False), [3.0, 2.0, 2.5, 2.2, 1.0])
    assert (state.best_round, state.best_score, state.stop, state.rounds_without) == (1, 2.0, True, 2)


def test_an_equal_score_is_no_improvement() -> None:
    assert after(EarlyStopping(1, maximize=True), [0.5, 0.5]).stop


def test_an_improvement_must_exceed_min_delta() -> None:
    state = after(EarlyStopping(5, maximize=True, min_delta=0.5), [1.0, 1.5, 1.625])
    assert (state.best_round, state.best_score) == (2, 1.625)


def test_a_nan_never_improves_and_a_first_nan_is_never_improved_on() -> None:
    assert after(EarlyStopping(9, maximize=False), [1.0, math.nan]).best_score == 1.0
    first = after(EarlyStopping(2, maximize=False), [math.nan, 1.0, 0.5, 0.1])
    assert first.best_round == 0
    assert first.stop


@given(scores, st.integers(1, 5))
def test_maximizing_is_minimizing_the_negative(values: list[float], rounds: int) -> None:
    most = after(EarlyStopping(rounds, maximize=True), values)
    least = after(EarlyStopping(rounds, maximize=False), [-value for value in values])
    assert (most.best_round, most.stop) == (least.best_round, least.stop)


@given(scores)
def test_without_stopping_the_best_round_is_the_first_of_the_best(values: list[float]) -> None:
    state = after(EarlyStopping(len(values) + 1, maximize=True), values)
    assert state.best_round == values.index(max(values))
    assert not state.stop


def test_a_state_goes_on_from_where_it_was() -> None:
    values = [3.0, 2.0, 2.5, 2.2]
    whole = after(EarlyStopping(3, maximize=False), values)
    resumed = after(EarlyStopping(3, False, 0.0, 1, 2.0, 0), [])
    resumed = resumed.update(2, 2.5).update(3, 2.2)
    assert resumed == whole


@pytest.mark.parametrize(("rounds", "min_delta"), [(0, 0.0), (-1, 0.0), (1, -0.1), (1, math.nan)])
def test_unusable_settings_are_refused(rounds: int, min_delta: float) -> None:
    with pytest.raises(InvalidArgumentError, match="rounds="):
        EarlyStopping(rounds, maximize=True, min_delta=min_delta)

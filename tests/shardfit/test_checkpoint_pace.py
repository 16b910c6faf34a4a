"""Checkpoints come often enough, and cost a fiftieth of the time at most; what the first will cost is tried early."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shardfit.checkpoint_pace import LARGEST_SHARE, CheckpointPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.spent = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds
        self.spent += seconds


def made_at(
    pace: CheckpointPace, clock: Clock, rounds: int, round_s: float, fixed_s: float, each_s: float
) -> list[int]:
    """Return the rounds after which one was made that takes `fixed_s` seconds, and `each_s` for each round in it."""
    made = []
    for number in range(1, rounds + 1):
        clock.now += round_s
        if pace.trial_due(number):
            with pace.trying(number):
                clock.spend(fixed_s + each_s * number)
        if pace.due(number):
            made.append(number)
            with pace.making(number):
                clock.spend(fixed_s + each_s * number)
    return made


def test_every_so_many_rounds_is_kept_to_whatever_it_costs() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(3, None, clock), clock, 10, 1.0, 50.0, 0.0) == [3, 6, 9]


def test_without_either_there_is_none() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(None, None, clock), clock, 100, 60.0, 0.0, 0.0) == []
    assert clock.spent == 0


def test_a_cheap_one_comes_after_so_many_seconds() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(None, 10.0, clock), clock, 40, 1.0, 0.0, 0.0) == [10, 20, 30, 40]


def test_the_first_waits_where_it_would_cost_too_much() -> None:
    clock = Clock()
    # 1 % of the time of its rounds.
    (first, *_) = made_at(CheckpointPace(None, 10.0, clock), clock, 100, 1.0, 0.0, 0.01)
    assert first == 10
    clock = Clock()
    # A large part does not grow: the first trial says that it never pays, the second one that it does.
    (first, *_) = made_at(CheckpointPace(None, 10.0, clock), clock, 1000, 0.1, 0.03, 0.0005)
    assert 100 < first < 400


def test_one_that_always_costs_too_much_is_made_after_five_minutes() -> None:
    clock = Clock()
    made = made_at(CheckpointPace(None, 10.0, clock), clock, 1500, 1.0, 0.0, 0.05)
    assert len(made) == 3
    assert 295 <= made[0] <= 305
    assert all(later > 1.9 * earlier for earlier, later in pairwise(made))


@given(st.floats(0.01, 30), st.floats(0.0, 10), st.floats(0.0, 0.02), st.floats(1, 60), st.integers(1, 500))
def test_all_take_a_fiftieth_at_most(
    round_s: float, fixed_s: float, growth: float, every_s: float, rounds: int
) -> None:
    clock = Clock()
    # Less than five minutes with the time of both trials, since one is made then whatever it costs.
    rounds = min(rounds, int(260 / round_s))
    pace = CheckpointPace(None, every_s, clock)
    made = made_at(pace, clock, rounds, round_s, fixed_s, growth * round_s)
    # Without any, there is the cost of the trial, which is of few rounds.
    if made:
        assert clock.spent <= rounds * round_s * LARGEST_SHARE + 1e-6

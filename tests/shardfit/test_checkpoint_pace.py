"""Checkpoints come often enough; those after the first, whose cost is not known before, cost a fiftieth of the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardfit.checkpoint_pace import LARGEST_SHARE, CheckpointPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made_at(pace: CheckpointPace, clock: Clock, rounds: int, round_s: float, cost_s: float) -> list[int]:
    made = []
    for number in range(1, rounds + 1):
        clock.now += round_s
        if pace.due(number):
            made.append(number)
            with pace.making():
                clock.now += cost_s
    return made


def test_every_so_many_rounds_is_kept_to_whatever_it_costs() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(3, None, clock), clock, 10, 1.0, 50.0) == [3, 6, 9]


def test_without_either_there_is_none() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(None, None, clock), clock, 100, 60.0, 0.0) == []


def test_a_cheap_one_comes_after_so_many_seconds() -> None:
    clock = Clock()
    assert made_at(CheckpointPace(None, 10.0, clock), clock, 40, 1.0, 0.0) == [10, 20, 30, 40]


@given(st.floats(0.01, 30), st.floats(0.0, 20), st.floats(1, 60))
def test_those_after_the_first_take_a_fiftieth_at_most(round_s: float, cost_s: float, every_s: float) -> None:
    clock = Clock()
    made = made_at(CheckpointPace(None, every_s, clock), clock, 500, round_s, cost_s)
    # The first is made without knowing what it costs, and the last one's time is not over yet.
    trained = 500 * round_s
    assert max(len(made) - 2, 0) * cost_s <= trained * LARGEST_SHARE + 1e-6

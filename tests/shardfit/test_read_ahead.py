"""Reading ahead keeps the order, passes on errors, and leaves no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import InvalidArgumentError
from shardfit.read_ahead import read_ahead


def readers_alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shardfit-read-ahead"]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_items_come_in_order_and_all_of_them(items: list[int], depth: int) -> None:
    assert list(read_ahead(iter(items), depth)) == items
    assert not readers_alive()


def test_none_is_an_item_like_any_other() -> None:
    assert list(read_ahead(iter([None, None]))) == [None, None]


def test_an_error_arrives_as_it_was_raised_after_the_items_before_it() -> None:
    error = OSError("page 3 is corrupt")

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    got: list[int] = []
    with pytest.raises(OSError, match="page 3") as caught:
        got.extend(read_ahead(failing(), depth=1))
    assert got == [1, 2]
    assert caught.value is error
    assert not readers_alive()


def test_an_interrupt_in_the_thread_arrives_too() -> None:
    def interrupted() -> Iterator[int]:
        raise KeyboardInterrupt
        yield 1

    with pytest.raises(KeyboardInterrupt):
        list(read_ahead(interrupted()))


@pytest.mark.parametrize("taken", [1, 3])
def test_closed_early_it_ends_the_thread_and_closes_what_it_read_from(taken: int) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    ahead = read_ahead(endless())
    assert [next(ahead) for _ in range(taken)] == list(range(taken))
    assert len(readers_alive()) == 1
    ahead.close()
    assert not readers_alive()
    assert closed.is_set()


def test_an_error_of_the_consumer_ends_the_thread() -> None:
    def consume() -> None:
        ahead = read_ahead(iter(range(1000)))
        try:
            next(ahead)
            raise RuntimeError("the matrix refused the batch")
        finally:
            ahead.close()

    with pytest.raises(RuntimeError, match="refused"):
        consume()
    assert not readers_alive()


def test_no_thread_starts_before_the_first_item_is_asked_for() -> None:
    ahead = read_ahead(iter([1]))
    assert not readers_alive()
    assert list(ahead) == [1]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_more_than_depth_items_are_there_beside_the_one_handed_over(depth: int) -> None:
    produced = threading.Semaphore(0)
    count = 0

    def counting() -> Iterator[int]:
        nonlocal count
        while True:
            count += 1
            produced.release()
            yield count

    ahead = read_ahead(counting(), depth)
    assert next(ahead) == 1
    for _ in range(1 + depth):
        assert produced.acquire(timeout=30)
    assert not produced.acquire(timeout=0.3)
    ahead.close()
    assert count == 1 + depth


def test_a_depth_that_would_hold_everything_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="depth is 0"):
        next(read_ahead(iter([1]), depth=0))

"""Ctrl-C while a library calls back from C is neither lost nor acted on where it would be."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from shardfit.errors import RunCancelledError
from shardfit.interrupts import HeldInterrupt


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def called_from_c(function: Callable[[], None]) -> None:
    ctypes.CFUNCTYPE(None)(function)()


@contextmanager
def handled_by(handler: object) -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_interrupt_between_callbacks_stops_the_next_one_and_comes_at_the_end() -> None:
    seen: list[str] = []
    interrupt = HeldInterrupt()

    def callback() -> None:
        try:
            with interrupt.callback():
                seen.append("read")
        except RunCancelledError:
            seen.append("cancelled")

    def library() -> None:
        with interrupt:
            called_from_c(callback)
            press()
            called_from_c(callback)
            seen.append("library is done")

    with pytest.raises(KeyboardInterrupt):
        library()
    assert seen == ["read", "cancelled", "library is done"]


def test_an_interrupt_that_is_raised_within_a_callback_comes_at_the_end() -> None:
    interrupt = HeldInterrupt()

    def observer() -> None:
        with interrupt.callback():
            raise KeyboardInterrupt("of an observer")

    def library() -> None:
        with interrupt, pytest.raises(RunCancelledError):
            observer()

    with pytest.raises(KeyboardInterrupt) as caught:
        library()
    assert caught.value.args == ("of an observer",)


def test_an_interrupt_wins_over_the_error_that_it_caused() -> None:
    def library() -> None:
        with HeldInterrupt() as interrupt:
            press()
            with interrupt.callback():
                pytest.fail("the callback went on")

    with pytest.raises(KeyboardInterrupt):
        library()


def test_a_handler_of_the_programs_own_is_called_once_and_stays() -> None:
    calls: list[int] = []

    def own(number: int, frame: object) -> None:
        calls.append(number)

    with handled_by(own):
        with HeldInterrupt():
            press()
            assert not calls
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is own


def test_an_ignored_signal_stays_ignored() -> None:
    with handled_by(signal.SIG_IGN), HeldInterrupt() as interrupt:
        press()
        with interrupt.callback():
            pass
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_errors_pass_through() -> None:
    interrupt = HeldInterrupt()
    with pytest.raises(ZeroDivisionError), interrupt, interrupt.callback():
        raise ZeroDivisionError


def test_other_threads_leave_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    within: list[object] = []

    def work() -> None:
        with HeldInterrupt() as interrupt, interrupt.callback():
            within.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [before]

"""Ending a run from outside: from another thread, soon, whatever its workers are doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shardfit.errors import RunCancelledError


class Cancellation:
    """A wish that one or more runs end; once made, it stays. Thread-safe.

    `train(job, cancellation=...)` raises `RunCancelledError` soon after `cancel`: its workers are gone then, its record
    says `cancelled`, and `shardfit runs resume` goes on from its last checkpoint.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wished = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._wished.is_set()

    def cancel(self) -> None:
        """Ask the runs to end; returns at once. May be called on any thread, any number of times."""
        with self._lock:
            self._wished.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise if the wish was made.

        Raises:
            RunCancelledError: It was.
        """
        if self.cancelled:
            raise RunCancelledError("training", "the run was cancelled", "`shardfit runs resume` goes on from there.")

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the wish.

        Raises:
            RunCancelledError: It was made.
        """
        self._wished.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called, on the thread that cancels, if the wish is made while the context lasts.

        Raises:
            RunCancelledError: It was made before.
        """
        with self._lock:
            self._callbacks.append(callback)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

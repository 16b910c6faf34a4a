"""When a worker makes a checkpoint: a loss must cost seconds, and making checkpoints must cost little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What checkpoints after so many seconds may cost, as a part of the time of training.
LARGEST_SHARE = 1 / 50


class CheckpointPace:
    """Says after which rounds a checkpoint is due. One a worker; training waits while a checkpoint is made.

    Every so many rounds is kept to exactly. Every so many seconds is the least time between two: where making one
    takes long, as for a large model, the next waits fifty times as long as it took. What the first costs is known only
    afterwards: a run that ends soon after it may have paid more than a fiftieth.

    Args:
        every_rounds: After every so many rounds, or None.
        every_seconds: After so many seconds without, or None.
        clock: Seconds since some moment.
    """

    def __init__(self, every_rounds: int | None, every_seconds: float | None, clock: Callable[[], float]) -> None:
        self._every_rounds, self._every_seconds, self._clock = every_rounds, every_seconds, clock
        self._last = clock()
        self._cost = 0.0

    def due(self, rounds: int) -> bool:
        """Return whether to make a checkpoint now.

        Args:
            rounds: Rounds that are done, those of an earlier run among them.
        """
        if self._every_rounds is not None and rounds % self._every_rounds == 0:
            return True
        if self._every_seconds is None:
            return False
        return self._clock() - self._last >= max(self._every_seconds, self._cost / LARGEST_SHARE)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Measure what making one costs."""
        begun = self._clock()
        try:
            yield
        finally:
            self._last = self._clock()
            self._cost = self._last - begun

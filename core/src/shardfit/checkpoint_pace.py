"""When a worker makes a checkpoint: a loss must cost seconds, and making checkpoints must cost little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What checkpoints after so many seconds may cost, as a part of the time of training.
LARGEST_SHARE = 1 / 50
# A model that takes more than that of the time of all its rounds gets one nevertheless, after 5 minutes, 10, 20...
_LONGEST_SECONDS = 300.0
# What the first one costs is found out after a tenth of the time without, and again with more rounds where that was
# too much: a part of the cost does not grow. To keep it may take a quarter more.
_TRIALS, _MORE_ROUNDS, _KEEPING = (0.1, 0.4), 3, 1.25


class CheckpointPace:
    """Says after which rounds a checkpoint is due. One a worker; training waits while a checkpoint is made.

    Every so many rounds is kept to exactly. Every so many seconds is the least time between two: where making one
    takes long, as for a large model, the next waits fifty times as long as it will take, which grows with the rounds.
    For the first one that is learnt from one or two trials: they are made early, of few rounds, and thrown away.

    Args:
        every_rounds: After every so many rounds, or None.
        every_seconds: After so many seconds without, or None.
        clock: Seconds since some moment.
    """

    def __init__(self, every_rounds: int | None, every_seconds: float | None, clock: Callable[[], float]) -> None:
        self._every_rounds, self._every_seconds, self._clock = every_rounds, every_seconds, clock
        self._began = self._last = clock()
        self._cost_of_round = self._cost_of_trials = 0.0
        self._trials, self._tried = 0, 0

    def trial_due(self, rounds: int) -> bool:
        """Return whether to make a checkpoint now and throw it away.

        Args:
            rounds: Rounds that are done, those of an earlier run among them.
        """
        if self._every_seconds is None or self._trials == len(_TRIALS) or self._last > self._began:
            return False
        if self._clock() - self._last < self._every_seconds * _TRIALS[self._trials]:
            return False
        return not self._trials or (rounds >= _MORE_ROUNDS * self._tried and not self.due(rounds))

    def due(self, rounds: int) -> bool:
        """Return whether to make a checkpoint now.

        Args:
            rounds: Rounds that are done, those of an earlier run among them.
        """
        if self._every_rounds is not None and rounds % self._every_rounds == 0:
            return True
        if self._every_seconds is None:
            return False
        cost = self._cost_of_round * rounds + self._cost_of_trials
        longest = max(_LONGEST_SECONDS, self._last - self._began)
        return self._clock() - self._last >= max(self._every_seconds, min(cost / LARGEST_SHARE, longest))

    @contextmanager
    def trying(self, rounds: int) -> Iterator[None]:
        """Measure what making one costs that is thrown away.

        Args:
            rounds: That it holds.
        """
        begun = self._clock()
        try:
            yield
        finally:
            cost = self._clock() - begun
            self._cost_of_trials += cost
            self._cost_of_round = cost * _KEEPING / rounds
            self._trials, self._tried = self._trials + 1, rounds

    @contextmanager
    def making(self, rounds: int) -> Iterator[None]:
        """Measure what making one costs.

        Args:
            rounds: That it holds.
        """
        begun = self._clock()
        try:
            yield
        finally:
            self._last = self._clock()
            self._cost_of_round, self._cost_of_trials = (self._last - begun) / rounds, 0.0

"""Waiting for the workers of one call: their results, their events, and their silence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from shardfit.engines.failures import Failure, explains_others, root_cause
from shardfit.engines.task_runner import EventBatch, Outcome
from shardfit.errors import WorkerError
from shardfit.events import EventSink

_WAIT_SECONDS = 0.2
# After a failure that another one may explain, the others get this long: a crash that writes a trace takes seconds.
_GRACE_SECONDS = 4.0
# And a worker that does not answer at all is given this long to be declared dead.
_SILENCE_SECONDS = 15.0


class WorkerCalls(Protocol):
    """How a `Watch` talks to workers. A request is whatever the engine hands out for a call that is under way."""

    def poll(self, rank: int) -> Any:
        """Ask a worker for its next events."""

    def ping(self, rank: int) -> Any:
        """Ask a worker whether it is there."""

    def ready(self, requests: Iterable[Any], timeout_s: float) -> Sequence[Any]:
        """Return the requests that are answered, waiting up to `timeout_s` seconds for a first one."""

    def answer(self, rank: int, request: Any) -> Any:
        """Return the answer to a request that is ready, or a `Failure`."""

    def describe(self, rank: int) -> str:
        """Return a worker's rank, node and process for people."""


class Watch:
    """One call of `run`: waits for results and events of all workers at once.

    Args:
        calls: How to talk to the workers.
        outcomes: The requests for the workers' outcomes, by rank.
        on_event: Receives events, on this thread; what it raises ends the wait.
    """

    def __init__(self, calls: WorkerCalls, outcomes: Sequence[Any], on_event: EventSink) -> None:
        self._calls = calls
        self._on_event = on_event
        self._workers = len(outcomes)
        self._outcomes = {request: rank for rank, request in enumerate(outcomes)}
        self._polls = {calls.poll(rank): rank for rank in range(len(outcomes))}
        self._pings: dict[Any, int] = {}
        self._values: dict[int, Any] = {}
        self._failures: list[Failure] = []
        self._failed_at = 0.0

    def results(self) -> list[Any]:
        """Return the results by rank.

        Raises:
            ShardfitError: The failure that explains the others.
        """
        while (self._outcomes or self._polls) and not self._given_up():
            for request in self._calls.ready([*self._outcomes, *self._polls, *self._pings], _WAIT_SECONDS):
                self._take(request)
        if self._failures:
            raise root_cause(self._failures).error
        return [self._values[rank] for rank in range(self._workers)]

    def _take(self, request: Any) -> None:
        if (rank := self._outcomes.pop(request, None)) is not None:
            self._take_outcome(rank, self._calls.answer(rank, request))
        elif (rank := self._polls.pop(request, None)) is not None:
            self._take_events(rank, self._calls.answer(rank, request))
        else:
            self._pings.pop(request)

    def _take_outcome(self, rank: int, outcome: Outcome | Failure) -> None:
        if isinstance(outcome, Failure):
            self._fail(outcome)
        elif outcome.error is not None:
            self._fail(Failure(rank, outcome.error))
        elif outcome.failed:
            asked = f"running {self._calls.describe(rank)}"
            self._fail(Failure(rank, WorkerError(asked, outcome.summary, f"Its traceback:\n{outcome.trace}")))
        else:
            self._values[rank] = outcome.value

    def _take_events(self, rank: int, batch: EventBatch | Failure) -> None:
        if isinstance(batch, Failure):
            self._fail(batch)
            return
        for event in batch.events:
            self._on_event(event)
        if not batch.last:
            self._polls[self._calls.poll(rank)] = rank

    def _fail(self, failure: Failure) -> None:
        if any(failure.rank == known.rank for known in self._failures):
            return
        if not self._failures:
            self._failed_at = time.monotonic()
            # A dead peer is often noticed first by the others, as a broken connection: find out who is still there.
            self._pings = {self._calls.ping(rank): rank for rank in self._outcomes.values()}
        self._failures.append(failure)

    def _given_up(self) -> bool:
        if not self._failures:
            return False
        waited = time.monotonic() - self._failed_at
        if not self._outcomes or waited > _SILENCE_SECONDS or explains_others(root_cause(self._failures)):
            return True
        return not self._pings and waited > _GRACE_SECONDS

"""Waiting for the workers of one call: their results, their events, and their silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic as now
from typing import Any, Protocol

from shardfit.engines.failure_detector import MUTE_SECONDS, FailureDetector
from shardfit.engines.failures import Failure, explains_others, root_cause
from shardfit.engines.losses import loss_event, lost_error, stalled_error
from shardfit.engines.task_runner import EventBatch, Outcome
from shardfit.engines.vitals import Vitals
from shardfit.errors import WorkerError, WorkerLostError
from shardfit.events import EventSink

_WAIT_SECONDS = 0.2
# After a failure that another one may explain, the others get this long: a crash that writes a trace takes seconds.
_GRACE_SECONDS = 4.0
# And a worker that does not answer at all is given this long to be declared dead.
_SILENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Gone:
    """The answer of a worker that is not there any more.

    Args:
        said: What the engine says of its end.
    """

    said: str


class WorkerCalls(Protocol):
    """How a `Watch` talks to workers. A request is whatever the engine hands out for a call that is under way."""

    def poll(self, rank: int) -> Any:
        """Ask a worker for its next events."""

    def ping(self, rank: int) -> Any:
        """Ask a worker whether it is there."""

    def ready(self, requests: Iterable[Any], timeout_s: float) -> Sequence[Any]:
        """Return the requests that are answered, waiting up to `timeout_s` seconds for a first one."""

    def answer(self, rank: int, request: Any) -> Any:
        """Return the answer to a request that is ready, a `Failure`, or `Gone` where there is no worker any more."""

    def examine(self, rank: int, said: str) -> Vitals:
        """Return what can be learnt of a worker without it, within a few seconds.

        Args:
            rank: Of the worker.
            said: What `Gone` says of it, or empty for one that is silent.
        """

    def place(self, rank: int) -> tuple[str, int]:
        """Return the name of a worker's node and the number of its process."""

    def describe(self, rank: int) -> str:
        """Return a worker's rank, node and process for people."""


class Watch:
    """One call of `run`: waits for results and events of all workers at once.

    Args:
        calls: How to talk to the workers.
        outcomes: The requests for the workers' outcomes, by rank.
        on_event: Receives events, on this thread; what it raises ends the wait.
        check: Called several times a second; what it raises ends the wait, too.
    """

    def __init__(
        self,
        calls: WorkerCalls,
        outcomes: Sequence[Any],
        on_event: EventSink,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._check = check
        self._calls = calls
        self._on_event = on_event
        self._workers = len(outcomes)
        self._outcomes = {request: rank for rank, request in enumerate(outcomes)}
        self._polls = {calls.poll(rank): rank for rank in range(len(outcomes))}
        self._pings: dict[Any, int] = {}
        self._values: dict[int, Any] = {}
        self._failures: list[Failure] = []
        self._failed_at = 0.0
        self._detector = FailureDetector(range(len(outcomes)))

    def results(self) -> list[Any]:
        """Return the results by rank.

        Raises:
            ShardfitError: The failure that explains the others.
        """
        while (self._outcomes or self._polls) and not self._given_up():
            self._check()
            for request in self._calls.ready([*self._outcomes, *self._polls, *self._pings], _WAIT_SECONDS):
                self._take(request)
            self._look_around()
        if self._failures:
            cause = root_cause(self._failures)
            if cause.seen_lost and isinstance(cause.error, WorkerLostError):
                # Told before the survivors are stopped, which takes a while.
                self._on_event(loss_event(cause.error))
            raise cause.error
        return [self._values[rank] for rank in range(self._workers)]

    def _take(self, request: Any) -> None:
        if (rank := self._outcomes.pop(request, None)) is not None:
            self._take_outcome(rank, self._calls.answer(rank, request))
        elif (rank := self._polls.pop(request, None)) is not None:
            self._take_events(rank, self._calls.answer(rank, request))
        else:
            self._pings.pop(request)

    def _take_outcome(self, rank: int, outcome: Outcome | Failure | Gone) -> None:
        if isinstance(outcome, Gone):
            self._lose(rank, self._calls.examine(rank, outcome.said))
            return
        self._detector.forget(rank)
        if isinstance(outcome, Failure):
            self._fail(outcome)
        elif outcome.error is not None:
            self._fail(Failure(rank, outcome.error))
        elif outcome.failed:
            asked = f"running {self._calls.describe(rank)}"
            self._fail(Failure(rank, WorkerError(asked, outcome.summary, f"Its traceback:\n{outcome.trace}")))
        else:
            self._values[rank] = outcome.value

    def _take_events(self, rank: int, batch: EventBatch | Failure | Gone) -> None:
        if isinstance(batch, Gone):
            if not any(failure.rank == rank for failure in self._failures):
                self._lose(rank, self._calls.examine(rank, batch.said))
            return
        if isinstance(batch, Failure):
            self._fail(batch)
            return
        self._detector.hear(rank, batch.pulse)
        for event in batch.events:
            self._on_event(event)
        if not batch.last:
            self._polls[self._calls.poll(rank)] = rank

    def _look_around(self) -> None:
        for rank, silent_s in self._detector.silent():
            vitals = self._calls.examine(rank, "")
            computes = vitals.reached and vitals.state != "T" and not vitals.gone
            # A library may hold Python's lock for long, and a disk may be slow; both end.
            if not computes or (not vitals.busy and silent_s >= MUTE_SECONDS):
                self._lose(rank, vitals, silent_s)
        if not self._failures and (stalled := self._detector.stalled()) is not None:
            self._give_up(stalled)

    def _give_up(self, rank: int) -> None:
        pulse, (node, pid) = self._detector.last(rank), self._calls.place(rank)
        budget, vitals = self._detector.budget(pulse.phase), self._calls.examine(rank, "")
        error = stalled_error(self._calls.describe(rank), rank, node, pid, vitals, pulse, budget)
        self._fail(Failure(rank, error, seen_lost=True))

    def _lose(self, rank: int, vitals: Vitals, silent_s: float = 0.0) -> None:
        pulse, (node, pid) = self._detector.last(rank), self._calls.place(rank)
        self._detector.forget(rank)
        error = lost_error(self._calls.describe(rank), rank, node, pid, vitals, pulse, silent_s)
        self._fail(Failure(rank, error, seen_lost=True))

    def _fail(self, failure: Failure) -> None:
        if any(failure.rank == known.rank for known in self._failures):
            return
        if not self._failures:
            self._failed_at = now()
            # A dead peer is often noticed first by the others, as a broken connection: find out who is still there.
            self._pings = {self._calls.ping(rank): rank for rank in self._outcomes.values()}
        self._failures.append(failure)

    def _given_up(self) -> bool:
        if not self._failures:
            return False
        waited = now() - self._failed_at
        if not self._outcomes or waited > _SILENCE_SECONDS or explains_others(root_cause(self._failures)):
            return True
        return not self._pings and waited > _GRACE_SECONDS

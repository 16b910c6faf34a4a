"""What a worker process does for its driver: run tasks on one thread of its own, and keep events to be fetched."""

from __future__ import annotations

import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from shardfit.engine import WorkerContext
from shardfit.engines.pulse import Pulse, PulseMeter
from shardfit.errors import ShardfitError
from shardfit.events import Event
from shardfit.file_parts import FilePart
from shardfit.scaling import WorkerSlot

# Events that come close together travel together: about ten messages a second and worker at most.
_BATCH_SECONDS = 0.1
_PARTS_THAT_WAIT = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a value, with an error of shardfit's, or with the text of any other exception.

    Args:
        value: What the task returned.
        error: The error that it raised, to be raised again as it is.
        summary: One line about an exception that is no `ShardfitError`.
        trace: The traceback of either, as text.
    """

    value: Any = None
    error: ShardfitError | None = None
    summary: str = ""
    trace: str = ""

    @property
    def failed(self) -> bool:
        """Whether the task raised."""
        return self.error is not None or bool(self.summary)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events of one worker, in order.

    Args:
        events: May be empty.
        last: Whether the task has ended and nothing follows.
        pulse: How the worker is.
    """

    events: tuple[Event, ...]
    last: bool
    pulse: Pulse = field(default_factory=Pulse)


class TaskRunner:
    """Runs tasks one after another on the same thread, while other threads fetch events and ask it to stop.

    One thread for all tasks, because libraries keep state in it: LightGBM its network, OpenMP its team.

    Args:
        slot: The worker's place.
        world_size: Number of workers.
        attempt: 1 for the first try.
    """

    def __init__(self, slot: WorkerSlot, world_size: int, attempt: int) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._parts = threading.Semaphore(_PARTS_THAT_WAIT)
        self._asked_to_stop = threading.Event()
        self._meter = PulseMeter()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shardfit-worker")
        self._context = WorkerContext(
            rank=slot.rank,
            world_size=world_size,
            slot=slot,
            attempt=attempt,
            emit=self._emit,
            should_stop=self._asked_to_stop.is_set,
        )

    def run(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        """Return how `task(context, *arguments)` ends; waits for it. Called by the driver, one task at a time."""
        return self._thread.submit(self._run, task, arguments).result()

    def next_events(self, wait_s: float) -> EventBatch:
        """Return what was emitted since the last call, waiting up to `wait_s` seconds for a first event."""
        try:
            first = self._events.get(timeout=wait_s)
        except queue.Empty:
            return EventBatch((), last=False, pulse=self._meter.pulse())
        events = [first]
        # Not from one event to the next: a worker that is never quiet would tell nothing until it is done.
        deadline = time.monotonic() + _BATCH_SECONDS
        while events[-1] is not None:
            try:
                events.append(self._events.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
            if len(events) >= _MOST_EVENTS:
                break
        told = tuple(event for event in events if event is not None)
        for _ in filter(lambda event: isinstance(event, FilePart), told):
            self._parts.release()
        return EventBatch(told, last=events[-1] is None, pulse=self._meter.pulse())

    def ask_to_stop(self) -> None:
        """Make the task's `should_stop` true."""
        self._asked_to_stop.set()

    def _emit(self, event: Event) -> None:
        self._meter.hear(event)
        if isinstance(event, FilePart):
            # A disk gives parts faster than a network takes them: no more than these wait in memory.
            self._parts.acquire()
        self._events.put(event)

    def _run(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        self._meter.begin()
        try:
            return Outcome(value=task(self._context, *arguments))
        except ShardfitError as error:
            return _outcome_of(error)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is told to the driver
            return Outcome(summary=_summary(error), trace=_trace(error))
        finally:
            self._events.put(None)


_MOST_EVENTS = 1000


def _outcome_of(error: ShardfitError) -> Outcome:
    trace = _trace(error)
    # The chain of causes may hold anything, and is in the text already.
    error.__cause__ = error.__context__ = None
    error.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled one call before
    except Exception:  # noqa: BLE001 - a subclass may refuse in any way
        return Outcome(summary=_summary(error), trace=trace)
    return Outcome(error=error, trace=trace)


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))

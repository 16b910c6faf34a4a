"""The sign of life that a worker gives with every answer: what it is doing, how far it is, what it uses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from shardfit.events import Event, Progress

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Pulse:
    """One sign of life of one worker.

    Args:
        phase: What it is doing: a phase of `Progress`, or empty before the first of a task.
        done: Rows, or rounds, of that phase done so far.
        idle_s: Seconds since the task began or made progress last, whichever is later.
        cpu_s: CPU seconds that the process has used so far, all threads together.
        memory: Resident bytes of the process; 0 where unknown.
    """

    phase: str = ""
    done: int = 0
    idle_s: float = 0.0
    cpu_s: float = 0.0
    memory: int = 0


class PulseMeter:
    """Watches what a worker's task emits, so that another thread can say how far the task is.

    That thread is the one that answers the driver: a library's call that runs for minutes without Python's lock stops
    the progress and not the pulse.

    Args:
        clock: Seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase, self._done, self._moved = "", 0, clock()

    def begin(self) -> None:
        """Forget the last task."""
        with self._lock:
            self._phase, self._done, self._moved = "", 0, self._clock()

    def hear(self, event: Event) -> None:
        """Take an event of the task; one of any kind is a sign of progress."""
        with self._lock:
            self._moved = self._clock()
            if isinstance(event, Progress):
                self._phase, self._done = event.phase, event.done

    def pulse(self) -> Pulse:
        """Return how things are now. Called on any thread."""
        with self._lock:
            phase, done, idle = self._phase, self._done, self._clock() - self._moved
        return Pulse(phase, done, idle, time.process_time(), resident_bytes())


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident bytes of a process of this machine, 0 where unknown.

    Args:
        pid: Its number, or `self` for this process.
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - ten times a second
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0

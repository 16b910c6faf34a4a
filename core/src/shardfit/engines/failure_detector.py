"""Which workers have been silent for too long, and whether all of them have come to a standstill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shardfit.engines.pulse import Pulse

# A worker answers about once a second. One that has not for so long is looked at by others, and again after as long.
SILENT_SECONDS = 6.0
# One whose process is there, and neither computes nor answers, is given up.
MUTE_SECONDS = 60.0
# What is waited for at least where a phase is known to move faster, and where nothing is known.
_LEAST_BUDGET_SECONDS, _UNKNOWN_BUDGET_SECONDS = 60.0, 600.0
_TIMES_LONGEST = 10.0
_FEWEST_GAPS = 2
# Who uses less of one CPU than this waits. Ray's own threads use a hundredth or two.
_WAITING_SHARE = 0.2
# The driver itself may have been stopped or starved, and hears nothing meanwhile.
_LONGEST_STEP_SECONDS = 1.0
_ORDER = ("", "profile", "ingest", "fit", "predict")


@dataclass
class _Worker:
    pulse: Pulse = field(default_factory=Pulse)
    silent_s: float = 0.0
    looked_s: float = 0.0
    cpu_when_moved: float = 0.0


@dataclass
class FailureDetector:
    """What the driver knows of the workers of one task. Called on the driver's thread only.

    Args:
        ranks: The workers that are at work.
        clock: Seconds since some moment.
    """

    ranks: Iterable[int]
    clock: Callable[[], float] = time.monotonic
    _workers: dict[int, _Worker] = field(init=False)
    _longest: dict[str, float] = field(init=False, default_factory=dict)
    _gaps: dict[str, int] = field(init=False, default_factory=dict)
    _began: float = field(init=False)
    _seen: float = field(init=False)

    def __post_init__(self) -> None:
        self._workers = {rank: _Worker() for rank in self.ranks}
        self._began = self._seen = self.clock()

    def hear(self, rank: int, pulse: Pulse) -> None:
        """Take a sign of life."""
        worker = self._workers.get(rank)
        if worker is None:
            return
        before = worker.pulse
        if pulse.idle_s < before.idle_s or (pulse.phase, pulse.done) != (before.phase, before.done):
            worker.cpu_when_moved = pulse.cpu_s
            self._gaps[before.phase] = self._gaps.get(before.phase, 0) + 1
            self._longest[before.phase] = max(self._longest.get(before.phase, 0.0), before.idle_s)
        worker.pulse, worker.silent_s, worker.looked_s = pulse, 0.0, 0.0

    def forget(self, rank: int) -> None:
        """Take the end of a worker's task."""
        self._workers.pop(rank, None)

    def last(self, rank: int) -> Pulse:
        """Return a worker's last sign of life."""
        worker = self._workers.get(rank)
        return worker.pulse if worker else Pulse()

    def silent(self) -> list[tuple[int, float]]:
        """Return the workers to look at now, and how many seconds each has been silent. Called many times a second."""
        now = self.clock()
        step, self._seen = min(now - self._seen, _LONGEST_STEP_SECONDS), now
        found = []
        for rank, worker in self._workers.items():
            worker.silent_s += step
            if worker.silent_s - worker.looked_s >= SILENT_SECONDS:
                worker.looked_s = worker.silent_s
                found.append((rank, worker.silent_s))
        return found

    def budget(self, phase: str) -> float:
        """Return the seconds without progress that a phase may take: many times the longest that it has taken."""
        if self._gaps.get(phase, 0) >= _FEWEST_GAPS:
            return max(_LEAST_BUDGET_SECONDS, _TIMES_LONGEST * self._longest[phase])
        return max(_UNKNOWN_BUDGET_SECONDS, _TIMES_LONGEST * (max(self._longest.values(), default=0.0)))

    def stalled(self) -> int | None:
        """Return the worker that the others wait for if none moves beyond its budget and none computes, or None.

        Workers wait for each other in every round, so one that gets nowhere stops all of them.
        """
        if not self._workers:
            return None
        for worker in self._workers.values():
            pulse = worker.pulse
            waits = pulse.cpu_s - worker.cpu_when_moved <= _WAITING_SHARE * pulse.idle_s
            if not waits or pulse.idle_s <= self.budget(pulse.phase):
                return None
        return min(self._workers, key=self._how_far)

    def _how_far(self, rank: int) -> tuple[int, int, float]:
        pulse = self._workers[rank].pulse
        return (_ORDER.index(pulse.phase) if pulse.phase in _ORDER else 0, pulse.done, -pulse.idle_s)

"""Showing people how far a run is: bars where there is a terminal, now and then a line where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from shardfit.events import (
    ArtifactStored,
    BinsRejected,
    Event,
    MetricsReported,
    Phase,
    PlanMade,
    ProfileMade,
    Progress,
    RunEnded,
    WorkerLost,
)

_LABELS: Mapping[Phase, str] = {
    "profile": "reading and sampling",
    "ingest": "binning",
    "fit": "training",
    "predict": "predicting",
}
_UNITS: Mapping[Phase, str] = {"profile": "rows", "ingest": "rows", "fit": "rounds", "predict": "rows"}


@dataclass
class _Tally:
    """How far one phase is, over all workers."""

    phase: Phase
    began: float
    parts: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)

    def take(self, event: Progress) -> None:
        self.parts[event.worker, event.dataset] = (event.done, event.total)

    @property
    def done(self) -> int:
        values = [done for done, _ in self.parts.values()]
        # All workers train the same rounds; a round is over when the slowest has done it.
        return min(values) if self.phase == "fit" else sum(values)

    @property
    def total(self) -> int:
        values = [total for _, total in self.parts.values()]
        return max(values) if self.phase == "fit" else sum(values)

    def seconds_left(self, now: float) -> float | None:
        elapsed = now - self.began
        return elapsed / self.done * (self.total - self.done) if self.done and elapsed > 0 else None


class ProgressReporter:
    """An observer that shows a run on a console. Called on the driver, with every event in order.

    Args:
        console: Where to show it; bars if it is a terminal, else lines.
        clock: Seconds since some moment.
        every_seconds: Least time between two lines of progress where there is no terminal.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, every_seconds: float = 5.0
    ) -> None:
        self._console = console
        self._clock = clock
        self._every_seconds = every_seconds
        self._tally: _Tally | None = None
        self._metrics = ""
        self._last_line = clock()
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Show what there is to show of an event."""
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, MetricsReported):
            values = " ".join(f"{name} {value:.6g}" for name, value in event.metrics.items())
            self._metrics = values
        elif isinstance(event, PlanMade):
            rows = ", ".join(f"{name} {count:,} rows" for name, count in event.rows.items())
            self._say(f"{rows}; {event.workers} worker{'s' if event.workers > 1 else ''}. {' '.join(event.reasons)}")
            self._warn(event.warnings)
        elif isinstance(event, ProfileMade):
            self._warn(event.warnings)
        elif isinstance(event, WorkerLost):
            self.close()
            self._say(f"worker {event.worker} was lost: {event.reason}")
        elif isinstance(event, BinsRejected):
            self._warn((f"worker {event.worker}, {event.reason}",))
        elif isinstance(event, ArtifactStored):
            self._say(f"stored {event.artifact} at {event.address}")
        elif isinstance(event, RunEnded):
            self._end(event)

    def close(self) -> None:
        """Take the bars off the terminal. May be called twice."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = self._tally = None

    def _progress(self, event: Progress) -> None:
        now = self._clock()
        new = self._tally is None or self._tally.phase != event.phase
        if self._tally is None or new:
            self._tally = _Tally(event.phase, now)
        self._tally.take(event)
        if self._console.is_terminal:
            self._draw(self._tally, new)
        elif now - self._last_line >= self._every_seconds:
            self._last_line = now
            self._say(self._line(self._tally, now))

    def _draw(self, tally: _Tally, new: bool) -> None:
        if self._bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
            )
            self._bars = Bars(*columns, console=self._console, get_time=self._clock, transient=True)
            self._bars.start()
        if new or self._task is None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(_LABELS[tally.phase], total=tally.total, metrics="")
        metrics = escape(self._metrics) if tally.phase == "fit" else ""
        self._bars.update(self._task, completed=tally.done, total=tally.total, metrics=metrics)

    def _line(self, tally: _Tally, now: float) -> str:
        share = f" ({100 * tally.done // tally.total} %)" if tally.total else ""
        parts = [f"{_LABELS[tally.phase]}: {tally.done:,} of {tally.total:,} {_UNITS[tally.phase]}{share}"]
        if tally.phase == "fit" and self._metrics:
            parts.append(self._metrics)
        left = tally.seconds_left(now)
        if left is not None:
            parts.append(f"about {left:.0f} s left")
        return ", ".join(parts)

    def _end(self, event: RunEnded) -> None:
        self.close()
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in event.phases.items())
        self._say(f"{event.status}{f': {seconds}' if seconds else ''}")

    def _warn(self, warnings: tuple[str, ...]) -> None:
        for warning in warnings:
            self._say(f"warning: {warning}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

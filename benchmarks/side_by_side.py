"""Runs commands side by side on one CPU, again and again, on a machine whose speed changes from second to second."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TypeVar

from benchmarks.case_runs import LIMIT_S, ROOT, Record, record_of

Key = TypeVar("Key", bound=Hashable)
_PAUSE_S = 0.1


def run_side_by_side(
    commands: Mapping[Key, Sequence[str]],
    times: int,
    on_record: Callable[[Key, Record], None] = lambda key, record: None,
) -> dict[Key, list[Record]]:
    """Run each command in a lane of its own, begun anew when it ends, until each has ended `times` times.

    All lanes share one CPU. The system gives it to each for milliseconds at a time, so that all of them see the same
    machine, however its speed changes; one after the other, a long command would meet other minutes than a short one.
    What they count must be CPU seconds, then, not those of the clock. Short commands end more often than `times`; what
    still runs at the end is stopped and not counted.

    Args:
        commands: Name -> command line of a program that prints JSON as its last line.
        times: 1 or more.
        on_record: Called with each record as it comes.

    Returns:
        What each printed, in the order of time.

    Raises:
        RuntimeError: One failed.
        subprocess.TimeoutExpired: One took longer than 350 s a lane.
    """
    found: dict[Key, list[Record]] = {key: [] for key in commands}
    with TemporaryDirectory(prefix="shardfit-side-by-side-") as folder, on_one_cpu(), ExitStack() as stack:
        lanes = {}
        for key, command in commands.items():
            lanes[key] = _Lane(command, folder, LIMIT_S * len(commands))
            stack.callback(lanes[key].stop)
        while min(map(len, found.values())) < times:
            time.sleep(_PAUSE_S)
            for key, lane in lanes.items():
                if (record := lane.poll()) is not None:
                    found[key].append(record)
                    on_record(key, record)
                    lane.start()
    return found


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Bind this thread, and all processes that it starts meanwhile, to the first CPU that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class _Lane:
    """One command, run again and again."""

    def __init__(self, command: Sequence[str], folder: str, limit: float) -> None:
        self._command, self._limit = list(command), limit
        # A command that is stopped leaves its temporary files; here they go with the folder.
        self._environment = {**os.environ, "TMPDIR": folder}
        own = Path(mkdtemp(dir=folder))
        self._printed, self._errors = own / "printed", own / "errors"
        self.start()

    def start(self) -> None:
        self._begun = time.monotonic()
        with self._printed.open("wb") as printed, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=printed, stderr=errors
            )

    def poll(self) -> Record | None:
        """Return what the command printed if it has ended, else None."""
        status = self._process.poll()
        if status is not None:
            return record_of(self._command, status, self._printed.read_text(), self._errors.read_text())
        if time.monotonic() - self._begun > self._limit:
            raise subprocess.TimeoutExpired(self._command, self._limit)
        return None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

"""Finds every process of a run, daemons included, and adds up their memory. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

PROC = Path("/proc")
MARKER = "SHARDFIT_BENCHMARK_RUN"

# A process is known by its number and the clock tick of its start, so that a number used again is another process.
Process = tuple[int, int]


class ProcessWatch:
    """Watches the processes of one run from another thread, and knows the peak of the sum of their PSS.

    A process belongs to the run when `MARKER` in its environment carries the run's name, or when its parent belongs,
    or when it once did: Ray's workers overwrite their environment with their title, and its daemons lose their parent.
    PSS shares the pages that several processes map, so that the sum counts each page once.

    Args:
        name: The value of `MARKER` in the environment of the run's first process.
        interval: Least seconds between two looks; more when looking takes long, so that it costs a tenth of a core.
    """

    def __init__(self, name: str, interval: float = 0.2) -> None:
        self.peak_bytes = 0
        self._mark = f"{MARKER}={name}".encode()
        self._interval = interval
        self._known: set[Process] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.kill()

    def alive(self) -> set[int]:
        """Return the process numbers of the run that are alive now."""
        parents = dict(_processes())
        found = {process for process in parents if process in self._known or self._is_marked(process)}
        numbers = {number for number, _ in found}
        while children := {child for child, parent in parents.items() if parent in numbers} - found:
            found |= children
            numbers |= {number for number, _ in children}
        self._known |= found
        return numbers

    def kill(self, patience: float = 10.0) -> None:
        """Kill whatever of the run is still alive, and wait until it is gone or `patience` seconds are over."""
        until = time.monotonic() + patience
        while (numbers := self.alive()) and time.monotonic() < until:
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.1)

    def _is_marked(self, process: Process) -> bool:
        try:
            return self._mark in (PROC / str(process[0]) / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def _watch(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            self.peak_bytes = max(self.peak_bytes, _pss(self.alive()))
            self._done.wait(max(self._interval, 10 * (time.monotonic() - began)))


def _processes() -> Iterator[tuple[Process, int]]:
    """Yield each process that is not a zombie, with its parent's number."""
    for number in (int(path.name) for path in PROC.iterdir() if path.name.isdigit()):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold spaces; the fields after it do not.
            fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                yield (number, int(fields[19])), int(fields[1])


def _pss(numbers: Iterable[int]) -> int:
    """Return the sum of the proportional set sizes of `numbers`, in bytes."""
    total = 0
    for number in numbers:
        with contextlib.suppress(OSError):
            for line in (PROC / str(number) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total

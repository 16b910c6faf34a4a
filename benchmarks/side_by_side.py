"""Runs commands side by side, turn by turn, on a machine whose speed changes from second to second."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TypeVar

from benchmarks.case_runs import LIMIT_S, ROOT, Record, record_of

Key = TypeVar("Key", bound=Hashable)
TURN_S = 0.5


def run_side_by_side(
    commands: Mapping[Key, Sequence[str]],
    times: int,
    on_record: Callable[[Key, Record], None] = lambda key, record: None,
) -> dict[Key, list[Record]]:
    """Run each command in a lane of its own, begun anew when it ends, until each has ended `times` times.

    The lanes take turns of half a second; meanwhile the others are stopped. So each has caches and CPUs to itself, and
    all of them see the same machine, however its speed changes; one after the other, a long command would meet other
    minutes than a short one. What they count must be CPU seconds, not those of the clock. Short commands end more often
    than `times`; what has not ended at the end is killed and not counted.

    Args:
        commands: Name -> command line of a program that prints JSON as its last line.
        times: 1 or more.
        on_record: Called with each record as it comes.

    Returns:
        What each printed, in the order of time.

    Raises:
        RuntimeError: One failed.
        subprocess.TimeoutExpired: One took longer than 350 s of its own.
    """
    found: dict[Key, list[Record]] = {key: [] for key in commands}
    with TemporaryDirectory(prefix="shardfit-side-by-side-") as folder, ExitStack() as stack:
        lanes = {key: _Lane(command, folder) for key, command in commands.items()}
        for lane in lanes.values():
            stack.callback(lane.kill)
        while min(map(len, found.values())) < times:
            for key, lane in lanes.items():
                if (record := lane.take_turn()) is not None:
                    found[key].append(record)
                    on_record(key, record)
    return found


class _Lane:
    """One command, run again and again."""

    def __init__(self, command: Sequence[str], folder: str) -> None:
        self._command = list(command)
        # A command that is killed leaves its temporary files; here they go with the folder.
        self._environment = {**os.environ, "TMPDIR": folder}
        own = Path(mkdtemp(dir=folder))
        self._printed, self._errors = own / "printed", own / "errors"
        self._process: subprocess.Popen[bytes] | None = None
        self._turns = 0

    def take_turn(self) -> Record | None:
        """Let the command run for a turn, or until it ends; return what it printed if it has ended, else None."""
        if self._process is None:
            self._process, self._turns = self._start(), 0
        else:
            self._process.send_signal(signal.SIGCONT)
        self._turns += 1
        try:
            status = self._process.wait(TURN_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGSTOP)
            if self._turns * TURN_S > LIMIT_S:
                raise subprocess.TimeoutExpired(self._command, LIMIT_S) from None
            return None
        self._process = None
        return record_of(self._command, status, self._printed.read_text(), self._errors.read_text())

    def _start(self) -> subprocess.Popen[bytes]:
        with self._printed.open("wb") as printed, self._errors.open("wb") as errors:
            return subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=printed, stderr=errors)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

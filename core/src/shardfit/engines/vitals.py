"""What the machine of a worker can tell of its process when the worker itself does not answer any more."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shardfit.engines.machine import control_groups, process_exists
from shardfit.process_identity import started_at

_LOG_LINES = 12
_LOG_BYTES = 16_384
_LOOK_SECONDS = 0.3
_CRASH = ("Fatal Python error: ", "*** SIG")


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where a worker's process is; told by itself when it starts.

    Args:
        pid: Its number on its machine.
        address: Of its node within the cluster.
        started: When the kernel started it, in ticks since the machine did; with the number it is unique.
        log: File that its standard error goes to, or empty.
        memory_group: Folder of its memory control group, or empty.
        oom_kills: Processes that had been killed for want of memory in that group, -1 where it does not count them, and
            on the whole machine.
    """

    pid: int
    address: str
    started: int = 0
    log: str = ""
    memory_group: str = ""
    oom_kills: tuple[int, int] = (0, 0)

    def describe(self) -> str:
        """Return where it is, for people."""
        return f"address {self.address}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is found of a worker's process.

    Args:
        reached: Whether its machine could be asked.
        state: The kernel's letter (`R` running, `S` sleeping, `D` waiting for a disk, `T` stopped), or empty if gone.
        busy: Whether it used a CPU while it was looked at.
        oom_kill: Whether the kernel killed something for want of memory meanwhile: in its `group`, on its `machine`.
        exit_code: Code that it ended with, where it is known.
        signal: Name of the signal that ended it, where it is known.
        log: Last lines of its log.
        said: What the engine says of its end.
    """

    reached: bool = True
    state: str = ""
    busy: bool = False
    oom_kill: str = ""
    exit_code: int | None = None
    signal: str = ""
    log: tuple[str, ...] = ()
    said: str = ""

    @property
    def gone(self) -> bool:
        """Whether there is no such process any more."""
        return self.reached and self.state in ("", "Z", "X")


def is_there() -> bool:
    """Return whether this machine answers at all; called on it. A built-in function would do, but Ray takes none."""
    return True


def own_place(address: str) -> WorkerPlace:
    """Return where this process is.

    Args:
        address: Of its node within the cluster.
    """
    pid = os.getpid()
    group = next((str(folder) for folder in control_groups(Path("/"), "memory") if folder.is_dir()), "")
    return WorkerPlace(pid, address, started_at(pid), _log_file(), group, _oom_kills(group))


def look_at(place: WorkerPlace) -> Vitals:
    """Return what this machine knows of a process on it. Takes a third of a second if the process is there.

    Args:
        place: What the process told of itself when it started.
    """
    state, cpu = _state(place)
    if state not in ("", "Z", "X", "T"):
        time.sleep(_LOOK_SECONDS)
        state, later = _state(place)
        return Vitals(state=state, busy=later > cpu, log=last_lines(place.log))
    (before, before_here), (now, now_here) = place.oom_kills, _oom_kills(place.memory_group)
    # A group counts its own processes whoever ran out of memory; the machine counts everybody's, those of others too.
    oom = "group" if now > before else "machine" if now < 0 and now_here > before_here else ""
    return Vitals(state=state, oom_kill=oom if state != "T" else "", log=last_lines(place.log))


def end_process(place: WorkerPlace) -> bool:
    """Kill a process of this machine that may be stopped or hang; return whether it was there."""
    if not process_exists(place.pid) or started_at(place.pid) != place.started:
        return False
    with suppress(ProcessLookupError):
        os.kill(place.pid, signal.SIGKILL)
    return True


def last_lines(log: str, lines: int = _LOG_LINES) -> tuple[str, ...]:
    """Return the last lines of a log file that say something, or the first of a crash; none without a file."""
    try:
        with open(log, "rb") as file:  # noqa: PTH123 - an empty name is no path
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except (OSError, ValueError):
        return ()
    # What Ray writes for its own readers.
    said = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith((":job_id:", ":actor"))]
    crash = next((place for place, line in enumerate(said) if line.startswith(_CRASH)), None)
    return tuple(said[-lines:] if crash is None else said[crash : crash + lines])


def _log_file() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        target = Path("/proc/self/fd/2").readlink()
    except OSError:
        return ""
    return str(target) if target.is_file() else ""


def _state(place: WorkerPlace) -> tuple[str, int]:
    """Return the letter of its state, and its CPU time in ticks; empty and 0 if it is gone."""
    try:
        words = Path(f"/proc/{place.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    if place.started and int(words[19]) != place.started:
        return "", 0
    return words[0], int(words[11]) + int(words[12])


def _oom_kills(group: str) -> tuple[int, int]:
    # Version 2 of the kernel's interface has `memory.events`, version 1 has `memory.oom_control`.
    names = (Path(group) / "memory.events", Path(group) / "memory.oom_control") if group else ()
    return max((_counter(name) for name in names), default=-1), max(0, _counter(Path("/proc/vmstat")))


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), -1)

"""Which process this is, so that another one of the same machine can tell for certain that it has ended."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from shardfit.engines.machine import process_exists

_LARGEST_PID = 2**31 - 1


@cache
def this_machine_now() -> str:
    """Return what identifies this machine since it was started, and this container on it; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Containers of one machine number their processes apart.
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started_at(pid: int) -> int:
    """Return when a process of this machine was started, in ticks since the machine was; 0 where it cannot be seen."""
    words = _stat(pid)
    return int(words[19]) if len(words) > 19 else 0


def has_ended(machine: str, pid: int, started: int) -> bool:
    """Return whether a process ran on this machine and runs no more; False where that cannot be known.

    Args:
        machine: What `this_machine_now` returned there.
        pid: Its number there.
        started: What `started_at` returned there.
    """
    if not machine or machine != this_machine_now() or not 0 < pid <= _LARGEST_PID:
        return False
    words = _stat(pid)
    if len(words) <= 19:
        # A machine may hide from its users what is not theirs.
        return not process_exists(pid)
    # One that has ended and that its parent has not asked after does nothing any more.
    return words[0] in ("Z", "X") or int(words[19]) != started


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []

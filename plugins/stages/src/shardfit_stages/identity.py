"""Which process this is, so that another on the same machine sees at once that it died."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path


def this_process() -> bytes:
    """Return what `has_died` takes; on systems without `/proc` it says nothing."""
    return json.dumps({"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}).encode()


def has_died(process: bytes) -> bool:
    """Return whether a process ran on this machine and runs no more; False where that cannot be known.

    Args:
        process: What `this_process` returned there.
    """
    try:
        told = json.loads(process)
        machine, pid, started = told["machine"], int(told["pid"]), told["started"]
    except (ValueError, TypeError, KeyError):
        return False
    return bool(machine) and machine == _machine() and _started(pid) != started


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Containers of one machine number their processes apart.
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    # A process that has ended and that its parent has not asked after writes nothing any more.
    return "" if fields[0] in ("Z", "X") else fields[19]

"""Which process this is, so that another on the same machine sees at once that it died."""

from __future__ import annotations

import json
import os

from shardfit.process_identity import has_ended, started_at, this_machine_now


def this_process() -> bytes:
    """Return what `has_died` takes; on systems without `/proc` it says nothing."""
    pid = os.getpid()
    return json.dumps({"machine": this_machine_now(), "pid": pid, "started": started_at(pid)}).encode()


def has_died(process: bytes) -> bool:
    """Return whether a process ran on this machine and runs no more; False where that cannot be known.

    Args:
        process: What `this_process` returned there.
    """
    try:
        told = json.loads(process)
        return has_ended(str(told["machine"]), int(told["pid"]), int(told["started"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return False

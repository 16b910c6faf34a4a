"""How much memory a worker really takes, phase by phase: what the plan is held to."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardfit.engine import WorkerContext
from shardfit.events import MemoryMeasured
from shardfit.memory_plan import MemoryPhase

_PROCESS = Path("/proc/self")
# Written to `clear_refs`, it sets the peak back to what is in use now.
_RESET_PEAK = "5"


@contextmanager
def measured(context: WorkerContext, phase: MemoryPhase) -> Iterator[None]:
    """Tell the driver the peak of this process's memory while the context lasts.

    Where the system does not let the peak be set back, it is that since the process began.

    Args:
        context: This worker.
        phase: What it is doing.
    """
    reset_peak()
    yield
    context.emit(MemoryMeasured(attempt=context.attempt, worker=context.rank, phase=phase, peak_bytes=peak_bytes()))


def reset_peak() -> None:
    """Set the peak of this process's memory back to what is in use, if the system lets it."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Return the peak of this process's memory since `reset_peak`, pages that are shared with others included."""
    try:
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

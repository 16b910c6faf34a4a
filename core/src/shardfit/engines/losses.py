"""From what was seen of a lost worker to why it was lost: a cause, and a sentence for people."""

from __future__ import annotations

import re
from dataclasses import replace

from shardfit.engines.pulse import Pulse
from shardfit.engines.vitals import Vitals
from shardfit.errors import LossCause, WorkerLostError
from shardfit.events import WorkerLost

# What Python's faulthandler and Ray write before a process that crashed is gone.
_CRASHES = {
    "Segmentation fault": "SIGSEGV",
    "SIGSEGV": "SIGSEGV",
    "Aborted": "SIGABRT",
    "SIGABRT": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
_CRASH = re.compile(rf"(?:Fatal Python error: |\*\*\* )({'|'.join(map(re.escape, _CRASHES))})")
_EXIT_CODE = re.compile(r"exits with an exit code (\d+)")
# A worker that is alive and says nothing is computing with Python's lock held, or waits in the kernel.
_ADVICE = {
    "out of memory": "Give it more memory, use more workers, or fewer columns or bins.",
    "crashed": "Its log ends with where.",
    "stalled": "It waits for data or for its peers; is a network or a disk stuck?",
    "frozen": "Its process is stopped, or its machine is cut off.",
}


def lost_error(
    who: str, rank: int, node: str, pid: int, vitals: Vitals, pulse: Pulse, silent_s: float = 0.0
) -> WorkerLostError:
    """Return the error that says which worker was lost, in which phase, and why.

    Args:
        who: The worker for people: rank, node, process.
        rank: Of the worker.
        node: Name of its node.
        pid: Of its process.
        vitals: What its machine, or the engine, knows of it.
        pulse: Its last sign of life.
        silent_s: Seconds without a sign of life, 0 for a worker whose end was seen.
    """
    vitals = _with_clues(vitals)
    cause, found = _cause(vitals, silent_s)
    if pulse.phase:
        found += f"; it was in the phase {pulse.phase!r}"
    if pulse.memory and cause in ("out of memory", "killed"):
        found += f", with {pulse.memory / 2**20:,.0f} MiB of memory when last heard"
    log = "".join(f"\n  {line}" for line in vitals.log)
    advice = _ADVICE.get(cause, "") + (f" The last lines of its log:{log}" if log else "")
    error = WorkerLostError(f"running {who}", found, advice.strip()).at(rank, node)
    return error.because(cause, pid, pulse.phase, vitals.exit_code, vitals.signal, vitals.log)


def stalled_error(
    who: str, rank: int, node: str, pid: int, vitals: Vitals, pulse: Pulse, budget_s: float
) -> WorkerLostError:
    """Return the error for a worker that gives signs of life and gets nowhere.

    Args:
        who: The worker for people.
        rank: Of the worker.
        node: Name of its node.
        pid: Of its process.
        vitals: What its machine knows of it.
        pulse: Its last sign of life.
        budget_s: Seconds that it could have taken.
    """
    found = (
        f"it is stalled: no progress in the phase {pulse.phase!r} for {pulse.idle_s:,.0f} s, where {budget_s:,.0f} s "
        "are many times what it took before, and neither it nor its peers compute"
    )
    error = WorkerLostError(f"running {who}", found, _ADVICE["stalled"]).at(rank, node)
    return error.because("stalled", pid, pulse.phase, None, "", vitals.log)


def loss_event(error: WorkerLostError) -> WorkerLost:
    """Return the event for observers."""
    return WorkerLost(
        worker=error.rank,
        node=error.node,
        reason=str(error),
        pid=error.pid,
        phase=error.phase,
        cause=error.cause,
        exit_code=error.exit_code,
        signal=error.signal,
        log=error.log,
    )


def _with_clues(vitals: Vitals) -> Vitals:
    """Return the vitals with the exit code or signal that the engine's words or the log tell."""
    if vitals.exit_code is not None or vitals.signal:
        return vitals
    if found := _EXIT_CODE.search(vitals.said):
        return replace(vitals, exit_code=int(found[1]))
    if "receives a SIGTERM" in vitals.said:
        return replace(vitals, signal="SIGTERM")
    if crash := next((match for line in reversed(vitals.log) if (match := _CRASH.search(line))), None):
        return replace(vitals, signal=_CRASHES[crash[1]])
    return vitals


def _cause(vitals: Vitals, silent_s: float) -> tuple[LossCause, str]:
    if vitals.oom_kill == "engine":
        return "out of memory", f"it was killed because its node ran out of memory: {vitals.said}"
    if vitals.oom_kill:
        where = "its memory control group" if vitals.oom_kill == "group" else "its machine"
        return "out of memory", f"the kernel killed it because {where} ran out of memory"
    if not vitals.reached:
        quiet = f" for {silent_s:,.0f} s" if silent_s else ""
        return ("frozen" if silent_s else "node gone"), f"its node does not answer{quiet}"
    if vitals.state == "T":
        return "frozen", f"its process is stopped and gave no sign of life for {silent_s:,.0f} s"
    if not vitals.gone and vitals.said and not vitals.signal:
        return "silent", f"its connection broke, and its process is there (state {vitals.state}): {vitals.said}"
    if not vitals.gone and not vitals.signal:
        return "silent", f"its process is there (state {vitals.state}) and gave no sign of life for {silent_s:,.0f} s"
    if vitals.signal in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
        return "killed", f"it was killed by {vitals.signal}"
    if vitals.signal:
        return "crashed", f"it crashed with {vitals.signal}"
    if vitals.exit_code is not None:
        return "exited", f"it ended with exit code {vitals.exit_code}"
    return "killed", "it went away without a word, as a process does that is killed by SIGKILL or leaves by os._exit"

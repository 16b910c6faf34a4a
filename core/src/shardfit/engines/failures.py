"""Which of several failures to report: the one that explains the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardfit.errors import RunCancelledError, ShardfitError, WorkerError, WorkerLostError


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker that failed.

    Args:
        rank: Which one.
        error: What to raise if this is the one to report.
        seen_lost: Whether the engine saw the process go away; False for an error that the worker's own code raised.
    """

    rank: int
    error: ShardfitError
    seen_lost: bool = False


def root_cause(failures: Sequence[Failure]) -> Failure:
    """Return the failure that explains the others; of equals, the one that came first.

    A worker that stops, for whatever reason, breaks the others' collectives a moment later. So what a worker raised on
    purpose comes first, then a process that the engine saw go away, then other exceptions, among them those of
    libraries that do not tell a broken connection from the rest, and last a worker that says that its peers are gone.

    Args:
        failures: In the order in which they were noticed; at least one.
    """
    return min(failures, key=_distance)


def explains_others(failure: Failure) -> bool:
    """Return whether no other failure could be the reason for this one."""
    return _distance(failure) <= 1


def reason_of_death(message: str) -> str:
    """Return what Ray says of a dead actor in one line, without ids and without advice about settings of Ray."""
    skipped = ("class_name:", "actor_id:", "pid:", "name:", "namespace:", "ip:", "The actor died unexpectedly before")
    lines = [line.strip() for line in message.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(skipped))
    return text.partition(" If the process was killed by the kernel")[0]


def _distance(failure: Failure) -> int:
    if failure.seen_lost:
        return 1
    if isinstance(failure.error, RunCancelledError):
        return 2
    if isinstance(failure.error, WorkerLostError):
        return 4
    return 3 if isinstance(failure.error, WorkerError) else 0

"""Workers that are threads and have met, for tests of the collectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from shardfit.collectives.contract import Collectives
from shardfit.collectives.meeting import Meeting, meeting_point
from shardfit.engine import WorkerContext
from shardfit.engines.machine import LOCAL_NODE
from shardfit.events import Event
from shardfit.scaling import WorkerLayout, WorkerSlot
from shardfit.testing.worker_threads import WorkerThreads

Result = TypeVar("Result")
Task = Callable[[Collectives], Result]

DTYPES = ["<f8", "<f4", ">f8", "<i8", "<u4", "|u1"]


def layout_of(workers: int) -> WorkerLayout:
    slots = tuple(WorkerSlot(rank, LOCAL_NODE, cpus=1) for rank in range(workers))
    return WorkerLayout("ray", slots, ("A test says so.",))


def ignore(event: Event) -> None:
    pass


def outcomes(workers: int, task: Task[Result], **timeouts: float) -> list[Result | BaseException]:
    """What `task` returns or raises on each of several threads that have met."""

    def work(context: WorkerContext, meeting: Meeting) -> Result | BaseException:
        try:
            with context.join(meeting) as peers:
                return task(peers)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            return error

    with WorkerThreads(layout_of(workers)) as group, meeting_point(group, **timeouts) as meeting:
        return group.run(work, [(meeting,)] * workers, ignore)


def together(workers: int, task: Task[Result]) -> list[Result]:
    results = []
    for outcome in outcomes(workers, task):
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


def part(rank: int, shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng([seed, rank]).standard_normal(shape) * 10.0 ** (rank * 3)
    return np.asarray(np.abs(values) % 30 if np.dtype(dtype).kind == "u" else values, dtype=dtype)

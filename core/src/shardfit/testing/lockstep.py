"""Workers as threads that add up arrays in lockstep: for tests of metrics without an engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import numpy as np

from shardfit.metrics.contract import Integers, Reducer

Result = TypeVar("Result")


class LockstepError(AssertionError):
    """Workers did not make the same calls of `allreduce`: on a cluster they would wait for each other forever."""


@dataclass
class _Meeting:
    """One place where all workers wait for each other, with the array that each brings, or None at its end."""

    world_size: int
    timeout: float
    brought: list[Integers | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.barrier = Barrier(self.world_size, timeout=self.timeout)
        self.brought = [None] * self.world_size

    def attend(self, rank: int, values: Integers | None) -> list[Integers | None]:
        self.brought[rank] = values
        self.barrier.wait()
        everyone = list(self.brought)
        self.barrier.wait()
        kinds = {None if each is None else (each.shape, each.dtype.str) for each in everyone}
        if len(kinds) > 1:
            raise LockstepError(f"workers brought arrays of different kinds, None for those that ended: {kinds!r}")
        return everyone

    def allreduce(self, rank: int) -> Callable[[Integers], Integers]:
        def add(values: Integers) -> Integers:
            if values.ndim != 1:
                raise LockstepError(f"allreduce takes one dimension, found the shape {values.shape!r}")
            everyone = self.attend(rank, values.copy())
            return np.asarray(np.sum([each for each in everyone if each is not None], axis=0, dtype=np.int64))

        return add


def run_in_lockstep(world_size: int, task: Callable[[Reducer], Result], timeout: float = 60) -> list[Result]:
    """Run `task` on every worker at once and return the results by rank.

    Args:
        world_size: Number of workers, 1 or more; each is a thread.
        task: Called with the worker's reducer.
        timeout: How long a worker waits for the others, in seconds.

    Raises:
        LockstepError: The workers called `allreduce` unequally often, or with arrays of different shapes.
        Exception: What a task raised, the first by rank.
    """
    meeting = _Meeting(world_size, timeout)

    def work(rank: int) -> Result | BaseException:
        try:
            result = task(Reducer(rank, world_size, meeting.allreduce(rank)))
            meeting.attend(rank, None)
            return result
        except BaseException as error:  # noqa: BLE001 - handed to the caller, after the others are let go
            meeting.barrier.abort()
            return error

    with ThreadPoolExecutor(world_size) as pool:
        outcomes = list(pool.map(work, range(world_size)))
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


__all__ = ["LockstepError", "run_in_lockstep"]

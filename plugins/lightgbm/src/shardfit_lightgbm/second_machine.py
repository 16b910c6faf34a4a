"""The second machine of a lone worker.

LightGBM counts the rows of a leaf exactly on one machine and estimates them from Hessians on several, so that
`min_data_in_leaf` may forbid another split. A lone worker therefore trains as two machines, the smaller of which is a
thread of this process that holds the first row, or the first query group: the same trees as on any number of workers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shardfit.collectives.contract import Call, Collectives
from shardfit.errors import WorkerLostError
from shardfit_lightgbm.library import parallel_levels, set_parallel_levels
from shardfit_lightgbm.network import library_network

_Letter = tuple[Call, npt.NDArray[np.uint8]] | None


class TwoThreads(Collectives):
    """The collectives of two threads of one process.

    Args:
        rank: 0 or 1.
        inbox: What the other one sends.
        outbox: What it receives.
    """

    def __init__(self, rank: int, inbox: queue.SimpleQueue[_Letter], outbox: queue.SimpleQueue[_Letter]) -> None:
        super().__init__(rank, 2)
        self._inbox, self._outbox = inbox, outbox

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends."""
        first: queue.SimpleQueue[_Letter] = queue.SimpleQueue()
        second: queue.SimpleQueue[_Letter] = queue.SimpleQueue()
        return cls(0, first, second), cls(1, second, first)

    def exchange(self, call: Call, payloads: Sequence[npt.NDArray[Any]]) -> list[tuple[Call, Any]]:
        """Swap one payload with the other thread.

        Raises:
            WorkerLostError: The other one has left.
        """
        other = 1 - self.rank
        # A copy, since LightGBM goes on to write into what it gave.
        self._outbox.put((call, payloads[other].copy()))
        if (letter := self._inbox.get()) is None:
            raise WorkerLostError(f"calling {call} on machine {self.rank} of this worker", "the other one has left")
        answers: list[tuple[Call, Any]] = [(call, payloads[self.rank]), (call, payloads[self.rank])]
        answers[other] = letter
        return answers

    def leave(self) -> None:
        """Tell the other one not to wait."""
        self._outbox.put(None)


class SecondMachine:
    """A thread with a network of its own that does what it is told. A context manager: leaving it ends the thread.

    Machine 0 is the thread, machine 1 the one that made it.
    """

    def __init__(self) -> None:
        self._there, self._here = TwoThreads.pair()
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="shardfit-lightgbm-second", daemon=True)

    @property
    def peers(self) -> Collectives:
        """The end of the one that made it."""
        return self._here

    @property
    def peers_of_thread(self) -> Collectives:
        """The end of the thread, for what it is told to do."""
        return self._there

    def __enter__(self) -> Self:
        self._thread.start()
        self._compute_alone()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.put(None)
        self._here.leave()
        self._thread.join()

    def begin(self, task: Callable[[], Any]) -> Future[Any]:
        """Let the thread run `task`, which may train together with the caller; return what will be its result."""
        done: Future[Any] = Future()
        self._tasks.put((task, done))
        return done

    def _compute_alone(self) -> None:
        """Let the thread compute by itself: threads of its own, for a row, would take the cores from the first one."""
        if (levels := parallel_levels()) is None:
            return
        self.begin(lambda: set_parallel_levels(0)).result()
        if parallel_levels() != levels:
            # An older OpenMP, that knows no difference between threads.
            set_parallel_levels(levels)

    def _work(self) -> None:
        with library_network(self._there) as network:
            while (given := self._tasks.get()) is not None:
                task, done = given
                try:
                    result = task()
                    network.check()
                except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
                    self._there.leave()
                    done.set_exception(error)
                else:
                    done.set_result(result)


__all__ = ["SecondMachine", "TwoThreads"]

"""What runs as an actor on a Ray cluster; imports no Ray, which knows how to make an actor of a class."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from shardfit.dedicated_process import dedicate_process
from shardfit.engines.task_runner import EventBatch, Outcome, TaskRunner
from shardfit.engines.vitals import WorkerPlace, own_place
from shardfit.scaling import WorkerSlot

_POLL_SECONDS = 1.0
# The task, a poll for events, and two short calls beside them.
CALLS_AT_ONCE = 4


class RayWorker:
    """The actor: a `TaskRunner` that the driver can call.

    Args:
        slot: Its place.
        world_size: Number of workers.
        attempt: 1 for the first try.
        python_path: The driver's own `sys.path`.
        address: Of its node within the cluster.
    """

    def __init__(
        self, slot: WorkerSlot, world_size: int, attempt: int, python_path: Sequence[str], address: str
    ) -> None:
        dedicate_process()
        # Ray leaves alone what it inherits from the shell that started the node.
        os.environ["OMP_NUM_THREADS"] = str(max(1, slot.cpus))
        # A user's own modules, where the nodes share a file system; after everything that is installed.
        sys.path.extend(path for path in python_path if path not in sys.path)
        if not faulthandler.is_enabled():
            faulthandler.enable()
        self._place = own_place(address)
        self._runner = TaskRunner(slot, world_size, attempt)

    def identify(self) -> WorkerPlace:
        """Return where this process is."""
        return self._place

    def next_events(self) -> EventBatch:
        """Return the events since the last call, and a sign of life; waits a second for a first event."""
        return self._runner.next_events(_POLL_SECONDS)

    def ask_to_stop(self) -> None:
        """Make the task's `should_stop` true."""
        self._runner.ask_to_stop()

    def run(self, task: Callable[..., Any], *arguments: Any) -> Outcome:
        """Return how a task ends; waits for it."""
        return self._runner.run(task, arguments)

"""Workers as threads of this process: a run on several workers without a cluster, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from shardfit.coverage import check_coverage
from shardfit.engine import Result, Shared, WorkerContext, WorkerGroup
from shardfit.engines.machine import LOCAL_ADDRESS
from shardfit.events import EventSink
from shardfit.job import Job
from shardfit.profile.datasets import KnownProfile
from shardfit.registry import Registry, default_registry
from shardfit.run import Run, TrainResult
from shardfit.run_plan import plan_run
from shardfit.scaling import ClusterResources, Node, WorkerLayout
from shardfit.train import train_attempt


class WorkerThreads(WorkerGroup):
    """Workers that are threads, each its own for the life of the group, as libraries keep state in it.

    Args:
        layout: Where they claim to run.
        attempt: 1 for the first try.
    """

    def __init__(self, layout: WorkerLayout, attempt: int = 1) -> None:
        self.layout = layout
        self._attempt = attempt
        self._threads = [ThreadPoolExecutor(1, f"worker-{slot.rank}") for slot in layout.slots]
        self._asked_to_stop = threading.Event()
        self._telling = threading.Lock()

    @property
    def address(self) -> str:
        """This machine, as seen by itself."""
        return LOCAL_ADDRESS

    def share(self, value: object) -> Shared:
        """Return `value` in its wrapper; it is not copied."""
        return Shared(value)

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], on_event: EventSink
    ) -> list[Result]:
        """Call `task(context, *arguments[rank])` on every thread; see `WorkerGroup.run`.

        Events reach `on_event` one at a time, on the thread of the worker that emits them. What a worker raises, the
        first by rank, is raised here as it is.
        """

        def tell(event: Any) -> None:
            with self._telling:
                on_event(event)

        futures: list[Future[Result]] = []
        for slot, thread, mine in zip(self.layout.slots, self._threads, arguments, strict=True):
            values = [argument.handle if isinstance(argument, Shared) else argument for argument in mine]
            context = WorkerContext(
                slot.rank, self.layout.workers, slot, self._attempt, tell, self._asked_to_stop.is_set
            )
            futures.append(thread.submit(task, context, *values))
        return [future.result() for future in futures]

    def ask_to_stop(self) -> None:
        """Set the flag that `should_stop` reads."""
        self._asked_to_stop.set()

    def stop(self) -> None:
        """Set the same flag, and wait for the threads: threads cannot be ended."""
        self._asked_to_stop.set()
        for thread in self._threads:
            thread.shutdown()


def train_on_threads(
    job: Job, workers: int, *, registry: Registry | None = None, observers: Sequence[EventSink] = ()
) -> TrainResult:
    """Train as `shardfit.train` does, with one attempt, on workers that are threads with one CPU each.

    Args:
        job: What to train; its `workers` and `engine` do not count.
        workers: Number of workers, 1 or more.
        registry: As for `shardfit.train`.
        observers: As for `shardfit.train`.

    Raises:
        ShardfitError: As for `shardfit.train`.
    """
    registry = registry or default_registry()
    nodes = tuple(Node(f"thread-{rank}", LOCAL_ADDRESS, 1.0) for rank in range(workers))
    job = job.model_copy(update={"workers": workers, "cpus_per_worker": 1})
    with Run.start(job, registry, observers) as run:
        plan = plan_run(job, registry, ClusterResources(nodes, "ray"))
        run.planned(plan)
        with WorkerThreads(plan.layout, run.attempt) as group:
            reports = train_attempt(run, plan, group, KnownProfile())
        coverage = check_coverage([report.coverage for report in reports])
        model = plan.trainer.collect([report.value for report in reports])
        return run.publish(plan, model, coverage)


__all__ = ["WorkerThreads", "train_on_threads"]

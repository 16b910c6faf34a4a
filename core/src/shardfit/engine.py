"""Starting workers and watching them: the contract of the two engines, `inline` and `ray`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from shardfit.events import CheckpointOffered, EventSink, MetricsReported, Phase, Progress
from shardfit.file_parts import send_in_parts
from shardfit.scaling import ClusterResources, WorkerLayout, WorkerSlot

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from shardfit.cancellation import Cancellation
    from shardfit.collectives.contract import Collectives
    from shardfit.collectives.meeting import Meeting

Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerContext:
    """What a worker knows of itself, and its line to the driver. Made by the engine, in the worker.

    Args:
        rank: 0 to world_size - 1.
        world_size: Number of workers.
        slot: Its place and its share of the node.
        attempt: 1 for the first try.
        emit: Sends an event to the driver; never raises, and waits only where parts of files come faster than it
            takes them.
        should_stop: Whether the driver has asked the workers to stop; cheap.
        clock: Seconds since some moment, for checkpoints after so many seconds.
    """

    rank: int
    world_size: int
    slot: WorkerSlot
    attempt: int = 1
    emit: EventSink = field(default=lambda event: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)
    clock: Callable[[], float] = time.monotonic

    def report(self, round: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a round; only worker 0's are kept, so every worker may call it."""
        if self.rank == 0:
            self.emit(MetricsReported(attempt=self.attempt, round=round, metrics=dict(metrics)))

    def offer_checkpoint(self, step: int, files: Mapping[str, bytes | Path], from_every_worker: bool = False) -> None:
        """Offer a checkpoint to the driver, which stores it; only worker 0's is taken, or a piece of each worker.

        Args:
            step: Rounds or steps that it holds.
            files: Name -> content, or the path of a local file, which is sent in parts of 8 MiB, never held whole, and
                may be removed afterwards.
            from_every_worker: Whether each worker offers files of its own, which are one checkpoint together.
        """
        if self.rank == 0 or from_every_worker:
            offered = send_in_parts(files, self.emit, self.rank, step, self.attempt)
            pieces = self.world_size if from_every_worker else 1
            self.emit(
                CheckpointOffered(attempt=self.attempt, step=step, files=offered, worker=self.rank, pieces=pieces)
            )

    def join(self, meeting: Meeting | None) -> AbstractContextManager[Collectives]:
        """Connect with the other workers while the context lasts, for libraries that do not; see `Collectives`.

        Args:
            meeting: What `shardfit.collectives.meeting_point` yielded in `Trainer.rendezvous`.

        Raises:
            InvalidArgumentError: There is no meeting: `rendezvous` yielded none.
            WorkerError: Not all workers came in time; names those that did not.
            WorkerLostError: The driver or a peer is gone.
        """
        from shardfit.collectives.meeting import join

        return join(self.rank, meeting)

    def progress(self, phase: Phase, done: int, total: int, dataset: str = "") -> None:
        """Say how far this worker is: rows, or rounds in the phase `fit`."""
        self.emit(
            Progress(attempt=self.attempt, worker=self.rank, phase=phase, done=done, total=total, dataset=dataset)
        )


@dataclass(frozen=True)
class Shared:
    """A value that every worker needs, handed over once. Made by `WorkerGroup.share`; opaque to everyone else.

    Args:
        handle: The engine's own reference.
    """

    handle: Any


class WorkerGroup(ABC):
    """Workers that are running. A context manager: leaving it stops them, however it is left.

    Args:
        layout: Where they run.
    """

    layout: WorkerLayout

    @property
    @abstractmethod
    def address(self) -> str:
        """Address of the driver's machine that every worker can reach."""

    @abstractmethod
    def share(self, value: object) -> Shared:
        """Hand `value` over once, to be passed to any number of tasks. Called on the driver."""

    @abstractmethod
    def run(
        self,
        task: Callable[..., Result],
        arguments: Sequence[tuple[Any, ...]],
        on_event: EventSink,
    ) -> list[Result]:
        """Run `task(context, *arguments[rank])` on every worker at once and return their results by rank.

        `Shared` among the arguments arrive as the values that were shared. Events that workers emit are passed to
        `on_event`, on the driver's thread, in the order of each worker. Called on the driver.

        Args:
            task: A function that can be pickled by reference.
            arguments: One tuple a worker.
            on_event: Receives events; what it raises ends the call, as an interrupt does.

        Raises:
            ShardfitError: A worker raised it; it arrives as it was raised. Of several failures, the one that explains
                the others: an error about the data before a lost worker, that before a broken connection.
            WorkerError: A worker raised anything else: rank, node and remote traceback.
            WorkerLostError: A worker or its node died.

        After a call that raised, the group can only be stopped.
        """

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Make every worker's `should_stop` true, soon; returns at once. May be called from `on_event`."""

    def cancel(self) -> None:
        """Have the call of `run` that is under way, or the next one, raise `RunCancelledError` soon. On any thread."""
        self.ask_to_stop()

    @abstractmethod
    def stop(self) -> None:
        """Stop every worker at once, whatever it is doing. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Engine(ABC):
    """Starts workers. Closed on purpose: `inline` and `ray` are all there is."""

    @abstractmethod
    def resources(self) -> ClusterResources:
        """Return what the cluster has now. Called on the driver, any number of times."""

    @abstractmethod
    def start(self, layout: WorkerLayout, attempt: int = 1, cancellation: Cancellation | None = None) -> WorkerGroup:
        """Start the workers of `layout`. Called once an attempt, on the driver.

        Args:
            layout: Where they run.
            attempt: 1 for the first try.
            cancellation: Ends the wait for workers that do not start.

        Raises:
            InfeasibleRequestError: The cluster can never place them; said at once.
            RunCancelledError: The run was cancelled meanwhile; nothing waits to start any more.
        """

"""The engine without a cluster: one worker, in this process."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shardfit.cancellation import Cancellation
from shardfit.engine import Engine, Result, Shared, WorkerContext, WorkerGroup
from shardfit.engines.machine import LOCAL_ADDRESS, this_machine
from shardfit.errors import InfeasibleRequestError, RunCancelledError, ShardfitError, WorkerError
from shardfit.events import Event, EventSink
from shardfit.scaling import ClusterResources, WorkerLayout


class InlineEngine(Engine):
    """Runs exactly one worker in this process: nothing is started, nothing is copied.

    Args:
        environ: Environment of the process; `CUDA_VISIBLE_DEVICES` limits the GPUs.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def resources(self) -> ClusterResources:
        """Return this machine alone."""
        return ClusterResources((this_machine(self._environ),), engine="inline")

    def start(self, layout: WorkerLayout, attempt: int = 1, cancellation: Cancellation | None = None) -> InlineGroup:
        """Return the group of the one worker, at once.

        Raises:
            InfeasibleRequestError: The layout has more than one worker.
        """
        if layout.workers != 1:
            raise InfeasibleRequestError(
                f"starting {layout.workers} workers in this process",
                "the inline engine runs exactly one",
                "Use a layout of the engine 'ray'.",
            )
        return InlineGroup(layout, attempt)


class InlineGroup(WorkerGroup):
    """The one worker that is this process.

    Args:
        layout: Of one slot.
        attempt: 1 for the first try.
    """

    def __init__(self, layout: WorkerLayout, attempt: int) -> None:
        self.layout = layout
        self._attempt = attempt
        self._asked_to_stop = threading.Event()
        self._cancellation = Cancellation()

    @property
    def address(self) -> str:
        """This machine, as seen by itself."""
        return LOCAL_ADDRESS

    def share(self, value: object) -> Shared:
        """Return `value` itself in its wrapper: the worker is in this process."""
        return Shared(value)

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], on_event: EventSink
    ) -> list[Result]:
        """Call `task(context, *arguments[0])` here; see `WorkerGroup.run`."""
        (mine,) = arguments
        values = [argument.handle if isinstance(argument, Shared) else argument for argument in mine]
        relay = _Relay(on_event, self._cancellation)
        context = WorkerContext(
            rank=0,
            world_size=1,
            slot=self.layout.slots[0],
            attempt=self._attempt,
            emit=relay,
            should_stop=self._asked_to_stop.is_set,
        )
        try:
            result = task(context, *values)
        except Exception as error:
            # What the driver raised while it heard of an event is why the worker ended, whatever became of it here.
            if relay.raised is not None:
                raise relay.raised from None
            if isinstance(error, RunCancelledError):
                self._cancellation.check()
            if isinstance(error, ShardfitError):
                raise
            trace = "".join(traceback.format_exception(error))
            raise WorkerError(
                "running worker 0 in this process", f"{type(error).__name__}: {error}", f"Its traceback:\n{trace}"
            ) from error
        if relay.raised is not None:
            raise relay.raised
        return [result]

    def ask_to_stop(self) -> None:
        """Set the flag that the worker's `should_stop` reads."""
        self._asked_to_stop.set()

    def cancel(self) -> None:
        """Have the worker stop, and whatever event it emits next raise."""
        self._cancellation.cancel()
        self._asked_to_stop.set()

    def stop(self) -> None:
        """Set the same flag: there is no process to end."""
        self._asked_to_stop.set()


class _Relay:
    """Passes events on and remembers what the observer raised, which ends the run even if a library swallows it."""

    def __init__(self, on_event: EventSink, cancellation: Cancellation) -> None:
        self._on_event, self._cancellation = on_event, cancellation
        self.raised: BaseException | None = None

    def __call__(self, event: Event) -> None:
        try:
            self._cancellation.check()
            self._on_event(event)
        except BaseException as error:
            self.raised = error
            raise

"""How XGBoost's workers meet: a tracker on the driver, a communicator on each worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import WorkerError, WorkerLostError

_MEETING_TIMEOUT_S = 300
_COLLECTIVE_TIMEOUT_S = 1800
_LEAVING_TIMEOUT_S = 5
# The place in XGBoost's sources that its messages about broken connections come from.
_COLLECTIVE_SOURCES = "/src/collective/"


@contextmanager
def tracker(workers: WorkerGroup) -> Iterator[Mapping[str, Any] | None]:
    """Hold a new tracker while an attempt lasts; yield what workers connect with, or None for one worker."""
    world_size = workers.layout.workers
    if world_size == 1:
        yield None
        return
    held = xgb.tracker.RabitTracker(world_size, workers.address, sortby="task", timeout=_MEETING_TIMEOUT_S)
    held.start()
    # Someone must sit in wait_for, or workers hang when they leave.
    waiter = threading.Thread(target=_wait, args=(held,), name="shardfit-xgboost-tracker", daemon=True)
    waiter.start()
    try:
        yield held.worker_args()
        waiter.join(_LEAVING_TIMEOUT_S)
    finally:
        # What the tracker says about workers that went away would hide why they went.
        with suppress(xgb.core.XGBoostError):
            held.free()
        waiter.join(_LEAVING_TIMEOUT_S)


def _wait(held: Any) -> None:
    try:
        held.wait_for()
    except xgb.core.XGBoostError:
        # The workers report what went wrong; the tracker only says that they are gone.
        return


@contextmanager
def communicator(context: WorkerContext, meeting: Mapping[str, Any] | None) -> Iterator[None]:
    """Connect this worker with its peers while the context lasts.

    Raises:
        WorkerLostError: A peer went away.
        WorkerError: The library sees another world than the one that was planned.
    """
    if meeting is None:
        yield
        return
    arguments = {
        **meeting,
        "dmlc_communicator": "rabit",
        "dmlc_task_id": f"{context.rank:08d}",
        "dmlc_timeout": _COLLECTIVE_TIMEOUT_S,
    }
    with _peer_loss(context.rank):
        connection = xgb.collective.CommunicatorContext(**arguments)
        connection.__enter__()
        try:
            _check_world(context)
            yield
        except BaseException:
            # Leaving fails as well when peers are gone, and would hide why this worker leaves.
            with suppress(xgb.core.XGBoostError):
                connection.__exit__(None, None, None)
            raise
        connection.__exit__(None, None, None)


@contextmanager
def _peer_loss(rank: int) -> Iterator[None]:
    """Tell what XGBoost says when its connections break from its other errors."""
    try:
        yield
    except xgb.core.XGBoostError as error:
        if _COLLECTIVE_SOURCES not in str(error):
            raise
        raise WorkerLostError(
            f"working with the peers of worker {rank}", str(error).partition("Stack trace")[0]
        ) from error


def _check_world(context: WorkerContext) -> None:
    seen = (xgb.collective.get_rank(), xgb.collective.get_world_size())
    if seen != (context.rank, context.world_size):
        raise WorkerError(
            "connecting XGBoost's workers",
            f"rank and world size are {seen!r} in the library, {(context.rank, context.world_size)!r} in the plan",
        )


def allreduce(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the elementwise sum over all workers; int64, the shape of `values`. Called on every worker."""
    summed: npt.NDArray[np.int64] = xgb.collective.allreduce(values.reshape(-1), xgb.collective.Op.SUM)
    return summed.reshape(values.shape)

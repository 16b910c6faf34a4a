"""Running a loop so that it can be given up: on a thread of its own, while the worker's thread watches the others."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import torch.distributed as dist

from shardfit.engine import WorkerContext
from shardfit.errors import InvalidArgumentError, ShardfitError, WorkerError, WorkerLostError
from shardfit_pytorch.group_keeper import GroupKeeper
from shardfit_pytorch.rendezvous import Peers

_LOOK_SECONDS = 0.1
# Peers that end their loops in the same step do so within a moment; whoever comes later finds the group closed.
_GRACE_SECONDS = 2.0
# What gloo, NCCL and the store say when the other end is gone.
_BROKEN = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "gloo",
    "nccl",
    "socket",
    "timed out",
    "process group",
)


def run_loop(
    loop: Callable[[], None], context: WorkerContext, peers: Peers, keeper: GroupKeeper, steps: Callable[[], int]
) -> None:
    """Run a loop to its end, whatever becomes of the other ranks.

    When the loop has ended and the others do not end theirs a moment later, this rank's process group is closed: a rank
    that waits for it in a collective is told that it waits in vain.

    Args:
        loop: The user's.
        context: Of this worker.
        peers: Its line to the others.
        keeper: Keeps the loop's process group.
        steps: Returns the batches that the loop has taken.

    Raises:
        InvalidArgumentError: Another rank ended its loop while this one waited for it.
        WorkerLostError: Another rank failed or died while this one waited for it.
        WorkerError: The loop called `sys.exit`.
        Exception: Whatever the loop raised.
    """
    if context.world_size == 1:
        try:
            _run(loop)
        finally:
            keeper.look()
            keeper.keep()
        return
    thread = _LoopThread(loop)
    thread.start()
    while not thread.ended.wait(_LOOK_SECONDS):
        keeper.look()
        if (in_vain := _waits_in_vain(thread, context, peers, steps())) is not None:
            raise in_vain
    keeper.look()
    if thread.error is None:
        peers.leave(steps())
        if _others_left(peers):
            keeper.keep()
            return
        gc.collect()
        keeper.let_go()
        return
    told = _explained(thread.error, context, peers, steps())
    keeper.keep()
    if told is not None:
        raise told from thread.error
    # Those that wait for this rank are ended by the driver, which hears of the error now.
    peers.fail(steps())
    raise thread.error


class _LoopThread(threading.Thread):
    def __init__(self, loop: Callable[[], None]) -> None:
        super().__init__(name="shardfit-loop", daemon=True)
        self._loop = loop
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            _run(self._loop)
        except BaseException as error:  # noqa: BLE001 - raised on the worker's thread
            self.error = error
        finally:
            self.ended.set()


def _run(loop: Callable[[], None]) -> None:
    try:
        loop()
    except SystemExit as error:
        raise WorkerError(
            "running the loop", f"it called sys.exit({error.code!r})", "Return from the function, or raise an error."
        ) from error


def _waits_in_vain(thread: threading.Thread, context: WorkerContext, peers: Peers, steps: int) -> ShardfitError | None:
    """Return why a loop will never come out of making its process group, or None."""
    if dist.is_initialized() or not _is_making_group(sys._current_frames().get(thread.ident or 0)):
        return None
    return _reason(context, peers, steps, "making its process group")


def _is_making_group(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "init_process_group" and "distributed" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _explained(error: BaseException, context: WorkerContext, peers: Peers, steps: int) -> ShardfitError | None:
    """Return what an error means that came of another rank's going away, or None if it is the loop's own."""
    text = str(error).lower()
    if not isinstance(error, RuntimeError) or isinstance(error, ShardfitError):
        return None
    if not any(words in text for words in _BROKEN):
        return None
    if (reason := _reason(context, peers, steps, "waiting for it in a collective")) is not None:
        return reason
    if not any(words in text for words in _BROKEN[:5]):
        return None
    return WorkerLostError(f"working with the peers of worker {context.rank}", str(error).strip().splitlines()[0])


def _reason(context: WorkerContext, peers: Peers, steps: int, doing: str) -> ShardfitError | None:
    if failed := peers.failed():
        ranks = ", ".join(map(str, sorted(failed)))
        return WorkerLostError(f"working with the peers of worker {context.rank}", f"the loop of rank {ranks} failed")
    left = peers.left()
    if not left:
        return None
    rank, taken = min(left.items())
    return InvalidArgumentError(
        f"running the loop on {context.world_size} ranks",
        f"rank {rank} ended its loop after {taken} batches, while rank {context.rank}, after {steps}, was {doing}",
        "Every rank must take the same number of steps and make the same collective calls: let all ranks leave "
        "the loop in the same step.",
    )


def _others_left(peers: Peers) -> bool:
    """Return whether the others end their loops, too, waiting a moment for it."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while not peers.all_left:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

"""What to go on with after a lost worker: the scaling policy is asked, and again after each wait that it wants."""

from __future__ import annotations

from shardfit.cancellation import Cancellation
from shardfit.engine import Engine
from shardfit.errors import WorkerLostError
from shardfit.events import EventSink, WaitingForWorkers
from shardfit.registry import Registry
from shardfit.run_plan import RunPlan
from shardfit.scaling import Resize, WorkerLayout

# However long a policy wants to wait, all in all.
LONGEST_WAIT_SECONDS = 600.0
_TELL_SECONDS = 5.0


def layout_after_loss(
    lost: WorkerLostError,
    plan: RunPlan,
    registry: Registry,
    engine: Engine,
    emit: EventSink,
    cancellation: Cancellation,
) -> WorkerLayout:
    """Return the layout of the next attempt: for fewer workers, or for more where nodes have come meanwhile.

    Args:
        lost: What ended the last attempt.
        plan: Of that attempt.
        registry: Has the policy.
        engine: Says what there is of the cluster now.
        emit: Hears how long is waited.
        cancellation: Ends the wait.

    Raises:
        WorkerLostError: The policy waited as long as it may, and no replacement came.
        RunCancelledError: The run was cancelled meanwhile.
    """
    policy = registry.get("scaling_policies", plan.job.scaling)
    left_s = LONGEST_WAIT_SECONDS
    while True:
        answer = policy.after_loss(engine.resources(), plan.request, plan.layout)
        if isinstance(answer, Resize):
            return answer.layout
        if left_s <= 0:
            raise lost
        # A policy that wants to be asked at once would be asked without end.
        wait_s = min(max(answer.wait_s, 0.1), left_s)
        left_s -= wait_s
        _wait(wait_s, left_s, plan.layout.workers, emit, cancellation)


def _wait(wait_s: float, after_s: float, workers: int, emit: EventSink, cancellation: Cancellation) -> None:
    while wait_s > 0:
        emit(WaitingForWorkers(workers=workers, seconds_left=wait_s + after_s))
        step = min(wait_s, _TELL_SECONDS)
        cancellation.wait(step)
        wait_s -= step

"""How many workers run, where, with what: values for the cluster and the request, and the policy's contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from shardfit.errors import PlanError


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine offers to workers.

    Args:
        name: Unique within the cluster; the engine places workers by it.
        address: Address that the other nodes reach it by.
        cpus: CPUs, possibly a fraction, 0 or more.
        gpus: GPUs, 0 or more.
        memory: Bytes that workers may use, container limits included; 0 where unknown.
    """

    name: str
    address: str
    cpus: float
    gpus: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class ClusterResources:
    """The nodes that a run can use.

    Args:
        nodes: In a stable order; the same cluster gives the same order.
        engine: `inline` where there is no cluster and `nodes` is this machine alone, else `ray`.
    """

    nodes: tuple[Node, ...]
    engine: Literal["inline", "ray"] = "inline"


@dataclass(frozen=True, slots=True)
class ScalingRequest:
    """What the user asked for and what is known of the data.

    Args:
        workers: Number of workers, or -1 for all that are useful.
        cpus_per_worker: CPUs of each worker, or -1 for all of a node divided by its workers.
        use_gpu: True, False, or None to decide from the cluster.
        rows: Rows of the training data.
        bytes: Approximate bytes of the training data once decoded, needed columns only.
    """

    workers: int = -1
    cpus_per_worker: int = -1
    use_gpu: bool | None = None
    rows: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_worker"):
            value = getattr(self, name)
            if value != -1 and value < 1:
                raise ValueError(f"ScalingRequest.{name} must be 1 or more, or -1 for all, found {value!r}")
        if self.rows < 0 or self.bytes < 0:
            raise ValueError(f"ScalingRequest.rows and .bytes must be 0 or more, found {self!r}")


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """One worker's place.

    Args:
        rank: 0 to workers - 1.
        node: Name of its node.
        cpus: Threads that it uses, 1 or more; 0 for one thread without a CPU set aside for it.
        gpus: GPUs that it uses; boosters use 0 or 1.
        memory: Bytes that it may use; 0 where unknown.
    """

    rank: int
    node: str
    cpus: int
    gpus: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """Where every worker runs, and why.

    Args:
        engine: `inline` (this process, exactly one worker) or `ray`.
        slots: One a worker, in the order of their ranks.
        reasons: Sentences for people; at least one.

    Raises:
        PlanError: The slots do not number the ranks, there is none, or an inline layout has more than one.
    """

    engine: Literal["inline", "ray"]
    slots: tuple[WorkerSlot, ...]
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if [slot.rank for slot in self.slots] != list(range(len(self.slots))) or not self.slots:
            raise PlanError("checking a worker layout", f"slots are not ranks 0 to n - 1: {self.slots!r}")
        if self.engine == "inline" and len(self.slots) > 1:
            raise PlanError("checking a worker layout", f"{len(self.slots)} workers for the inline engine")
        if not self.reasons:
            raise PlanError("checking a worker layout", "no reason is given", "Say why it was chosen.")

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self.slots)

    @property
    def uses_gpu(self) -> bool:
        """Whether any worker uses a GPU."""
        return any(slot.gpus for slot in self.slots)

    def first(self, workers: int) -> WorkerLayout:
        """Return the layout of the first `workers` workers, for data with fewer rows than workers."""
        if workers >= self.workers:
            return self
        reason = f"The data fills {workers} of {self.workers} workers."
        return WorkerLayout(self.engine, self.slots[:workers], (*self.reasons, reason))


@dataclass(frozen=True, slots=True)
class Keep:
    """After a loss: wait for a replacement and go on with as many workers.

    Args:
        wait_s: Seconds to wait before the policy is asked again.
    """

    wait_s: float


@dataclass(frozen=True, slots=True)
class Resize:
    """After a loss: go on with this layout."""

    layout: WorkerLayout


class ScalingPolicy(Protocol):
    """Pure functions from a cluster and a request to a layout. Called on the driver only."""

    def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
        """Return the layout for a new run. Called once a run.

        Raises:
            InfeasibleRequestError: The cluster can never meet the request: required, available, what to change.
        """

    def after_loss(self, cluster: ClusterResources, request: ScalingRequest, lost: WorkerLayout) -> Keep | Resize:
        """Return what to do now that a worker of the layout `lost` is gone. Called once a failed attempt.

        Args:
            cluster: What is left of the cluster.
            request: The request of the run.
            lost: The layout that was running.

        Raises:
            InfeasibleRequestError: Nothing that is left can go on.
        """

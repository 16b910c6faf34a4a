"""The scaling policy that holds unless another is named: all of the cluster for large data, one worker for small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shardfit.errors import InfeasibleRequestError
from shardfit.scaling import ClusterResources, Keep, Node, Resize, ScalingRequest, WorkerLayout, WorkerSlot

SMALL_BYTES = 64 * 2**20
SMALL_ROWS = 500_000


@dataclass(frozen=True, slots=True)
class DefaultScalingPolicy:
    """Uses what the cluster has, and says what it chose and why.

    * No cluster, `workers` -1 or 1: one worker in this process with all CPUs; Ray is not started. `workers` n: a Ray of
      this machine, its CPUs divided evenly.
    * A cluster, `workers` -1: one worker a node with all its whole CPUs; one a GPU with GPUs; as many as fit where
      `cpus_per_worker` is given. `workers` n: spread evenly, the nodes with most CPUs first; the CPUs of a node are
      divided evenly between its workers.
    * Small data (both limits known and undercut), `workers` -1: one worker, on the node with most CPUs. On a cluster it
      is a Ray worker, since the driver's machine may be a head node with no CPU to spare.
    * `use_gpu` None: GPUs if there are any and the request fits on them, else CPUs.

    Ranks follow the order of the nodes. Nodes with less than one whole CPU are not used, except this machine where
    there is no cluster. With the device unchanged, one node more never means fewer workers or fewer CPUs.

    Args:
        small_bytes: Decoded bytes below which data is small.
        small_rows: Rows below which data is small.
    """

    small_bytes: int = SMALL_BYTES
    small_rows: int = SMALL_ROWS

    def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
        """Return the layout for a new run. Called once a run, on the driver.

        Raises:
            InfeasibleRequestError: The cluster can never meet the request: required, available, what to change.
        """
        gpu, device_reason = _choose_device(cluster, request)
        rooms = [_room(cluster, node, request, gpu) for node in cluster.nodes]
        if max(1, request.workers) > sum(rooms):
            raise _infeasible(cluster, request, gpu, sum(rooms))
        counts, reason = self._count(cluster, request, gpu, rooms)
        engine: Literal["inline", "ray"] = "inline" if cluster.engine == "inline" and sum(counts) == 1 else "ray"
        return WorkerLayout(engine, _slots(cluster, request, gpu, counts), (reason, device_reason))

    def after_loss(self, cluster: ClusterResources, request: ScalingRequest, lost: WorkerLayout) -> Keep | Resize:
        """Return the layout to go on with: that of `decide`, for as many workers as still fit.

        The device stays that of the lost layout, since another would end in another model. Called once a failed
        attempt, on the driver. This policy never waits: it has no way to know that a node will come back.

        Raises:
            InfeasibleRequestError: Not one worker fits on what is left.
        """
        asked = replace(request, use_gpu=lost.uses_gpu)
        room = sum(_room(cluster, node, asked, lost.uses_gpu) for node in cluster.nodes)
        if not room:
            raise _infeasible(cluster, replace(asked, workers=1), lost.uses_gpu, room)
        layout = self.decide(cluster, replace(asked, workers=min(asked.workers, room)))
        reason = f"After a loss the run goes on with {_many(layout.workers, 'worker')}; it had {lost.workers}."
        return Resize(replace(layout, reasons=(reason, *layout.reasons)))

    def _count(
        self, cluster: ClusterResources, request: ScalingRequest, gpu: bool, rooms: Sequence[int]
    ) -> tuple[list[int], str]:
        """Return the number of workers of each node, and why."""
        order = _largest_first(cluster.nodes)
        if request.workers != -1:
            counts = _spread(rooms, request.workers, order)
            where = "this machine" if cluster.engine == "inline" else _many(_used(counts), "node")
            return counts, f"{_many(request.workers, 'worker')} asked for, on {where}."
        if cluster.engine == "inline":
            reason = "There is no cluster: one worker in this process; Ray is not started."
            more = f" Ask for {_many(rooms[0], 'worker')} to use every GPU." if gpu and rooms[0] > 1 else ""
            return _spread(rooms, 1, order), reason + more
        if 0 < request.bytes < self.small_bytes and 0 < request.rows < self.small_rows:
            size = f"{request.rows:,} rows and {request.bytes / 2**20:,.1f} MiB"
            limit = f"{self.small_rows:,} rows and {self.small_bytes / 2**20:,.0f} MiB"
            reason = f"The data is small ({size}, under {limit}): one worker is faster than several."
            return _spread(rooms, 1, order), reason
        if gpu:
            return list(rooms), f"One worker for each of {_many(sum(rooms), 'GPU')} on {_many(_used(rooms), 'node')}."
        if request.cpus_per_worker != -1:
            cpus = _many(request.cpus_per_worker, "CPU")
            fit = f"{_many(sum(rooms), 'worker')} of {cpus} fit on {_many(_used(rooms), 'node')}."
            return list(rooms), fit
        counts = [min(room, 1) for room in rooms]
        return counts, f"One worker for each of {_many(sum(counts), 'node')}, with all its CPUs."


def _choose_device(cluster: ClusterResources, request: ScalingRequest) -> tuple[bool, str]:
    """Return whether workers use GPUs, and why."""
    if request.use_gpu is not None:
        return request.use_gpu, f"{'GPUs' if request.use_gpu else 'CPUs only'} asked for (use_gpu={request.use_gpu})."
    found = sum(math.floor(node.gpus) for node in cluster.nodes)
    if not found:
        return False, "CPUs only: no GPU was found (use_gpu=None)."
    rooms = [_room(cluster, node, request, gpu=True) for node in cluster.nodes]
    if max(1, request.workers) > sum(rooms):
        wanted = f"{_many(max(1, request.workers), 'worker')} asked for, one GPU each"
        return False, f"CPUs only: {wanted}, and {_many(found, 'GPU')} found with room for {sum(rooms)} (use_gpu=None)."
    return True, f"GPUs: {_many(found, 'GPU')} found (use_gpu=None)."


def _whole_cpus(cluster: ClusterResources, node: Node) -> int:
    # This process runs here whatever share of a CPU its container has.
    return max(math.floor(node.cpus), 1 if cluster.engine == "inline" else 0)


def _room(cluster: ClusterResources, node: Node, request: ScalingRequest, gpu: bool) -> int:
    """Return how many workers fit on a node."""
    room = _whole_cpus(cluster, node) // max(1, request.cpus_per_worker)
    return min(room, math.floor(node.gpus)) if gpu else room


def _largest_first(nodes: Sequence[Node]) -> list[int]:
    """Return the positions of the nodes: most CPUs, then most memory, then first."""
    return sorted(range(len(nodes)), key=lambda i: (-math.floor(nodes[i].cpus), -nodes[i].memory, i))


def _spread(rooms: Sequence[int], workers: int, order: Sequence[int]) -> list[int]:
    """Return a number of workers for each node: even, as far as there is room, the first of `order` one more."""
    counts = [0] * len(rooms)
    left = workers
    while left:
        open_nodes = [i for i in order if counts[i] < rooms[i]]
        # Every open node has room for `level` more, and there are enough workers for all of them, or too few for one.
        level = max(1, min(left // len(open_nodes), min(rooms[i] - counts[i] for i in open_nodes)))
        for i in open_nodes[:left]:
            counts[i] += level
        left -= level * min(left, len(open_nodes))
    return counts


def _slots(
    cluster: ClusterResources, request: ScalingRequest, gpu: bool, counts: Sequence[int]
) -> tuple[WorkerSlot, ...]:
    slots: list[WorkerSlot] = []
    for node, count in zip(cluster.nodes, counts, strict=True):
        if count:
            cpus = _whole_cpus(cluster, node) // count if request.cpus_per_worker == -1 else request.cpus_per_worker
            memory = node.memory // count
            slots += [WorkerSlot(len(slots) + i, node.name, cpus, int(gpu), memory) for i in range(count)]
    return tuple(slots)


def _infeasible(cluster: ClusterResources, request: ScalingRequest, gpu: bool, room: int) -> InfeasibleRequestError:
    each = f"at least {_many(max(1, request.cpus_per_worker), 'CPU')}" + (" and 1 GPU" if gpu else "")
    cpus, gpus = sum(node.cpus for node in cluster.nodes), sum(node.gpus for node in cluster.nodes)
    what = "this machine has" if cluster.engine == "inline" else f"the cluster has {_many(len(cluster.nodes), 'node')},"
    largest = max((node.cpus for node in cluster.nodes), default=0)
    found = f"{what} {_many(cpus, 'CPU')} ({largest:g} on the largest node) and {_many(gpus, 'GPU')}"
    if room:
        smaller = ", or fewer CPUs for each" if request.cpus_per_worker > 1 else ""
        advice = f"Ask for at most {_many(room, 'worker')}{smaller}, or add nodes."
    elif gpu:
        advice = "Set use_gpu=False, ask for fewer CPUs for each worker, or add nodes with GPUs."
    else:
        advice = "Ask for fewer CPUs for each worker, or add nodes with whole CPUs."
    return InfeasibleRequestError(
        f"placing {_many(max(1, request.workers), 'worker')} of {each}", f"{found}; {room} fit", advice
    )


def _used(counts: Sequence[int]) -> int:
    return sum(1 for count in counts if count)


def _many(number: float, word: str) -> str:
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {word}{'' if number == 1 else 's'}"

"""Where the workers of a loop run: so many nodes, so many workers on each, all there is unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from shardfit.errors import InfeasibleRequestError
from shardfit.hookspecs import hookimpl
from shardfit.scaling import ClusterResources, Node, Resize, ScalingPolicy, ScalingRequest, WorkerLayout, WorkerSlot
from shardfit_pytorch.config import PyTorchScalingConfig, WorkerResourceConfig


class RunPolicies:
    """The plugin of one run: its scaling policy under a name.

    Args:
        name: No other run has it.
        policy: Of the run.
    """

    def __init__(self, name: str, policy: NodesPolicy) -> None:
        self._name, self._policy = name, policy

    @hookimpl
    def shardfit_scaling_policies(self) -> Mapping[str, ScalingPolicy]:
        """Provide the policy."""
        return {self._name: self._policy}


@dataclass(frozen=True, slots=True)
class NodesPolicy:
    """Uses the nodes and the workers on each that a `PyTorchScalingConfig` asks for.

    * `num_nodes` None: every node that can run the workers; else the nodes with most CPUs, as many as asked for.
    * `num_workers_per_node` None: one for each GPU, or one worker with all CPUs where there are no GPUs.
    * Without a cluster and with one worker, that is this process, and Ray is not started.
    * After a loss: as many of the nodes as are left, with as many workers on each.

    Args:
        config: What was asked for.
    """

    config: PyTorchScalingConfig

    def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
        """Return the layout for a new run. Called once a run, on the driver.

        Raises:
            InfeasibleRequestError: The cluster can never meet the request: required, available, what to change.
        """
        resources, device_reason = self._resources(cluster, request)
        counts = {node.name: self._workers_on(cluster, node, resources) for node in cluster.nodes}
        able = [node for node in cluster.nodes if counts[node.name]]
        wanted = self.config.num_nodes or max(1, len(able))
        if len(able) < wanted:
            raise _infeasible(cluster, self.config, resources, len(able))
        largest = sorted(able, key=lambda node: (-math.floor(node.cpus), -node.memory))[:wanted]
        chosen = [node for node in cluster.nodes if node in largest]
        slots: list[WorkerSlot] = []
        for node in chosen:
            slots += _slots(cluster, node, counts[node.name], resources, len(slots))
        inline = cluster.engine == "inline" and len(slots) == 1
        engine: Literal["inline", "ray"] = "inline" if inline else "ray"
        return WorkerLayout(engine, tuple(slots), (self._reason(cluster, slots, chosen), device_reason))

    def after_loss(self, cluster: ClusterResources, request: ScalingRequest, lost: WorkerLayout) -> Resize:
        """Return the layout to go on with: what is left of the nodes that were asked for.

        The device stays that of the lost layout. Called once a failed attempt, on the driver.

        Raises:
            InfeasibleRequestError: Not one node is left that can run the workers.
        """
        resources, _ = self._resources(cluster, replace(request, use_gpu=lost.uses_gpu))
        left = sum(1 for node in cluster.nodes if self._workers_on(cluster, node, resources))
        asked = self.config.num_nodes
        config = replace(
            self.config,
            num_nodes=None if asked is None else max(1, min(asked, left)),
            resource_requirements_per_worker=resources,
        )
        layout = NodesPolicy(config).decide(cluster, request)
        reason = f"After a loss the run goes on with {_many(layout.workers, 'worker')}; it had {lost.workers}."
        return Resize(replace(layout, reasons=(reason, *layout.reasons)))

    def _resources(self, cluster: ClusterResources, request: ScalingRequest) -> tuple[WorkerResourceConfig, str]:
        asked = self.config.resource_requirements_per_worker
        if asked is not None:
            gpus = _many(asked.num_gpus, "GPU") if asked.num_gpus else "no GPU"
            cpus = "a share of the CPUs" if asked.num_cpus is None else _many(asked.num_cpus, "CPU")
            return asked, f"Each worker was asked to have {cpus} and {gpus} (resource_requirements_per_worker)."
        found = sum(math.floor(node.gpus) for node in cluster.nodes)
        if found and request.use_gpu is not False:
            return WorkerResourceConfig(num_gpus=1), f"One GPU for each worker: {_many(found, 'GPU')} found."
        if found:
            return WorkerResourceConfig(), "CPUs only asked for (use_gpu=False)."
        return WorkerResourceConfig(), "CPUs only: no GPU was found."

    def _workers_on(self, cluster: ClusterResources, node: Node, resources: WorkerResourceConfig) -> int:
        """Return how many workers a node gets, 0 if it cannot run as many as were asked for."""
        # This process runs here whatever share of a CPU its container has.
        cpus = max(math.floor(node.cpus), 1 if cluster.engine == "inline" else 0)
        rooms = []
        if resources.num_cpus != 0:
            rooms.append(cpus // (resources.num_cpus or 1))
        if resources.num_gpus:
            rooms.append(math.floor(node.gpus) // resources.num_gpus)
        asked = self.config.num_workers_per_node
        if asked is not None:
            return asked if all(room >= asked for room in rooms) else 0
        most = min(rooms, default=1)
        return most if resources.num_gpus else min(most, 1)

    def _reason(self, cluster: ClusterResources, slots: list[WorkerSlot], nodes: list[Node]) -> str:
        config = self.config
        many = _many(len(slots), "worker")
        if cluster.engine == "inline" and len(slots) == 1:
            return "There is no cluster: one worker in this process; Ray is not started."
        where = "this machine" if cluster.engine == "inline" else _many(len(nodes), "node")
        asked = [
            f"{name}={value}"
            for name, value in {
                "num_nodes": config.num_nodes,
                "num_workers_per_node": config.num_workers_per_node,
            }.items()
            if value is not None
        ]
        if asked:
            return f"{many} on {where}, as asked for ({', '.join(asked)})."
        if slots[0].gpus:
            return f"{many} on {where}: one for each GPU there is."
        return f"{many} on {where}: one for each node, with all its CPUs."


def _slots(
    cluster: ClusterResources, node: Node, count: int, resources: WorkerResourceConfig, first: int
) -> list[WorkerSlot]:
    whole = max(math.floor(node.cpus), 1 if cluster.engine == "inline" else 0)
    cpus = whole // count if resources.num_cpus is None else resources.num_cpus
    memory = node.memory // count
    return [WorkerSlot(first + number, node.name, cpus, resources.num_gpus, memory) for number in range(count)]


def _infeasible(
    cluster: ClusterResources, config: PyTorchScalingConfig, resources: WorkerResourceConfig, able: int
) -> InfeasibleRequestError:
    workers = config.num_workers_per_node or 1
    cpus = 1 if resources.num_cpus is None else resources.num_cpus
    each = f"{_many(cpus, 'CPU')} and {_many(resources.num_gpus, 'GPU')}"
    asked = f"placing {_many(workers, 'worker')} of {each} on each of {_many(config.num_nodes or 1, 'node')}"
    totals = f"{sum(n.cpus for n in cluster.nodes):g} CPUs and {sum(n.gpus for n in cluster.nodes):g} GPUs"
    where = (
        "this machine has" if cluster.engine == "inline" else f"the cluster has {_many(len(cluster.nodes), 'node')},"
    )
    advice = ["ask for fewer nodes or fewer workers on each"] if workers > 1 or (config.num_nodes or 1) > 1 else []
    if resources.num_gpus:
        advice.append("set num_gpus=0")
    if cpus:
        advice.append("set num_cpus=0, which sets no CPU aside")
    advice = advice or ["start a cluster with nodes"]
    text = ", or ".join(advice)
    return InfeasibleRequestError(
        asked, f"{where} {totals}; {_many(able, 'node')} can", f"{text[0].upper()}{text[1:]}, or add nodes."
    )


def _many(count: float, what: str) -> str:
    return f"{count:g} {what}" if count == 1 else f"{count:,g} {what}s"

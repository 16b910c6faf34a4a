"""Which node of a cluster a worker's slot means, and whether it has what the workers need."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardfit.engines.addresses import answers
from shardfit.engines.machine import LOCAL_NODE
from shardfit.errors import InfeasibleRequestError
from shardfit.scaling import Node, WorkerLayout


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the cluster knows it.

    Args:
        identity: The cluster's own id of it.
        address: Address that the other nodes reach it by.
        resources: `CPU` and `GPU` in numbers, `memory` in bytes; what is missing is 0.
        name: What layouts call it; from address and id where empty.
        port: Where the cluster's own process on it listens; 0 where unknown.
    """

    identity: str
    address: str
    resources: Mapping[str, float]
    name: str = ""
    port: int = 0

    @property
    def answers(self) -> bool:
        """Whether something listens there now; waits a second at most."""
        return answers(f"{self.address}:{self.port}")

    @property
    def node(self) -> Node:
        """The node as scaling policies see it."""
        # Several nodes can share an address, and a whole id has too many digits for people.
        return Node(
            name=self.name or f"{self.address}-{self.identity[:8]}",
            address=self.address,
            cpus=float(self.resources.get("CPU", 0.0)),
            gpus=float(self.resources.get("GPU", 0.0)),
            memory=int(self.resources.get("memory", 0)),
        )


def member_of(node: Mapping[str, Any], name: str) -> Member:
    """Return a node as Ray lists it.

    Args:
        node: Ray's own description.
        name: What layouts call it; from address and id where empty.
    """
    return Member(node["NodeID"], node["NodeManagerAddress"], node["Resources"], name, node["NodeManagerPort"])


def in_order(members: Iterable[Member]) -> list[Member]:
    """Return the members by address, in numeric order, then by id."""
    return sorted(members, key=lambda member: (_sortable(member.address), member.identity))


def place(layout: WorkerLayout, members: Sequence[Member], here: str) -> list[Member]:
    """Return the node of each slot.

    Args:
        layout: Where the workers should run. The node `local` is the driver's own: a layout may have been decided
            before there was a cluster.
        members: The nodes that are alive.
        here: Id of the driver's own node.

    Raises:
        InfeasibleRequestError: A node is gone, or can never have what its workers need.
    """
    nodes = {member.node.name: member for member in members}
    nodes.update((LOCAL_NODE, member) for member in members if member.identity == here)
    required: dict[str, Counter[str]] = {"CPU": Counter(), "GPU": Counter()}
    for slot in layout.slots:
        if slot.node not in nodes:
            raise InfeasibleRequestError(
                f"placing worker {slot.rank} on node {slot.node!r}",
                f"the cluster has {sorted(nodes)!r}",
                "Decide the layout again from the cluster as it is.",
            )
        required["CPU"][slot.node] += slot.cpus
        required["GPU"][slot.node] += slot.gpus
    for kind, counts in required.items():
        for name, count in counts.items():
            available = nodes[name].resources.get(kind, 0.0)
            if count > available:
                raise InfeasibleRequestError(
                    f"placing {layout.workers} workers",
                    f"{count} {kind}s are required on node {name!r}, which has {available:g}",
                    f"Ask for fewer workers or fewer {kind}s each, or add nodes.",
                )
    return [nodes[slot.node] for slot in layout.slots]


def occupied(
    workers: int, waiting: int, deadline_s: float, free: Mapping[str, float], total: Mapping[str, float]
) -> InfeasibleRequestError:
    """Return the error for workers that did not start, since something else has their CPUs or GPUs.

    Args:
        workers: How many were to start.
        waiting: How many of them did not.
        deadline_s: Seconds that were waited.
        free: Resource -> what nobody uses now.
        total: Resource -> what the cluster has.
    """
    kinds = " and ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
    return InfeasibleRequestError(
        f"starting {workers} workers",
        f"{waiting} of them did not start within {deadline_s:g} s; {kinds} are free beside those that did",
        "Something else occupies the cluster: end it, or ask for fewer workers or fewer CPUs each.",
    )


def _sortable(address: str) -> tuple[int, int, str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return (0, 0, address)
    return (parsed.version, int(parsed), address)

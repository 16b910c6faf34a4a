"""How the workers of a loop meet: a store that the driver holds, and the variables that `init_process_group` reads.

The store listens before any worker starts, on a port that the system chose and on the cluster's address alone, so no
two runs can want the same port. Every attempt has a new one. Workers are clients of it, rank 0 too.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import InvalidArgumentError, WorkerLostError

_STORE_TIMEOUT = timedelta(seconds=300)
_SIOCGIFADDR = 0x8915
_LEFT, _FAILED = "shardfit/left", "shardfit/failed"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where workers meet, and who they are.

    Args:
        address: Of the machine that holds the store.
        port: Of the store.
        nodes: Node of each worker, by rank.
    """

    address: str
    port: int
    nodes: tuple[str, ...]

    def local_rank(self, rank: int) -> int:
        """Return the worker's number among those of its node."""
        return self.nodes[:rank].count(self.nodes[rank])

    def local_world_size(self, rank: int) -> int:
        """Return how many workers its node has."""
        return self.nodes.count(self.nodes[rank])

    def node_rank(self, rank: int) -> int:
        """Return the number of its node, in the order of the ranks."""
        return list(dict.fromkeys(self.nodes)).index(self.nodes[rank])


@contextmanager
def meeting_store(workers: WorkerGroup) -> Iterator[Meeting]:
    """Hold a new store while an attempt lasts; yield what workers find it by."""
    # Taken over by the store, which closes it when it goes.
    listener = socket.create_server((workers.address, 0), backlog=max(128, workers.layout.workers))
    port = listener.getsockname()[1]
    store = TCPStore(
        workers.address,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=_STORE_TIMEOUT,
        master_listen_fd=listener.detach(),
    )
    try:
        yield Meeting(workers.address, port, tuple(slot.node for slot in workers.layout.slots))
    finally:
        del store


class Peers:
    """A worker's line to the others, beside the process group of the loop: who has left, and how.

    Args:
        context: Of this worker.
        meeting: Where the store is.
        store: This worker's client of it.
    """

    def __init__(self, context: WorkerContext, meeting: Meeting, store: Any) -> None:
        self.store = store
        self._rank, self._world_size = context.rank, context.world_size
        self._meeting = meeting

    def leave(self, steps: int) -> None:
        """Tell the others that this worker's loop has ended well.

        Args:
            steps: Batches that it took in all.
        """
        self._tell(_LEFT, steps)

    def fail(self, steps: int) -> None:
        """Tell the others that this worker's loop has raised.

        Args:
            steps: Batches that it took in all.
        """
        self._tell(_FAILED, steps)

    def left(self) -> dict[int, int]:
        """Return the workers whose loops have ended well, each with the batches that it took."""
        return self._told(_LEFT)

    def failed(self) -> dict[int, int]:
        """Return the workers whose loops have raised, each with the batches that it took."""
        return self._told(_FAILED)

    @property
    def all_left(self) -> bool:
        """Whether every worker's loop has ended, however."""
        return len({**self.left(), **self.failed()}) == self._world_size

    def _tell(self, key: str, steps: int) -> None:
        self.store.append(key, f"{self._rank}:{steps},")

    def _told(self, key: str) -> dict[int, int]:
        if not self.store.check([key]):
            return {}
        told = self.store.get(key).decode().rstrip(",").split(",")
        return {int(rank): int(steps) for rank, steps in (each.split(":") for each in told)}


@contextmanager
def joined(context: WorkerContext, meeting: Meeting) -> Iterator[Peers]:
    """Connect this worker with the store, and set the variables that PyTorch reads, while the context lasts.

    Raises:
        InvalidArgumentError: This process is part of a process group already.
        WorkerLostError: The store does not answer.
    """
    if dist.is_initialized():
        raise InvalidArgumentError(
            "running a loop in this process",
            "it is part of a process group already",
            "Call torch.distributed.destroy_process_group() before; the loop makes its own.",
        )
    try:
        store = TCPStore(meeting.address, meeting.port, is_master=False, timeout=_STORE_TIMEOUT)
    except dist.DistError as error:
        raise WorkerLostError(
            f"connecting worker {context.rank} with the store at {meeting.address}:{meeting.port}", str(error)
        ) from error
    # PyTorch puts a hook there when it makes a group, and leaves it.
    before, hook = dict(os.environ), sys.excepthook
    try:
        os.environ.update(_variables(context, meeting))
        _share_gpus(context, meeting, store)
        yield Peers(context, meeting, store)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.excepthook = hook
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _variables(context: WorkerContext, meeting: Meeting) -> dict[str, str]:
    rank = context.rank
    variables = {
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        "RANK": str(rank),
        "WORLD_SIZE": str(context.world_size),
        "LOCAL_RANK": str(meeting.local_rank(rank)),
        "LOCAL_WORLD_SIZE": str(meeting.local_world_size(rank)),
        "GROUP_RANK": str(meeting.node_rank(rank)),
        # Rank 0 is a client of the store, too, instead of opening one.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    # By themselves, gloo and NCCL take the address that the host's name leads to, which others may not reach.
    if (interface := interface_towards(meeting.address, meeting.port)) is not None:
        names = [name for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name not in os.environ]
        variables.update(dict.fromkeys(names, interface))
    return variables


def interface_towards(address: str, port: int) -> str | None:
    """Return the name of the network interface by which an address is reached, or None where it cannot be told.

    Args:
        address: Of a machine.
        port: Something listens there.
    """
    with socket.create_connection((address, port), timeout=_STORE_TIMEOUT.total_seconds()) as connection:
        own = connection.getsockname()[0]
        family = connection.family
    if family != socket.AF_INET:
        return None
    try:
        import fcntl
    except ImportError:  # Not on Windows.
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # It has no address.
                continue
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return None


def _share_gpus(context: WorkerContext, meeting: Meeting, store: Any) -> None:
    """Let every worker of a node see all their GPUs, in the order of the local ranks, as loops count on."""
    mine = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not context.slot.gpus or not mine or meeting.local_world_size(context.rank) == 1:
        return
    store.set(f"shardfit/gpus/{context.rank}", mine)
    node = meeting.nodes[context.rank]
    together = [
        store.get(f"shardfit/gpus/{rank}").decode() for rank, other in enumerate(meeting.nodes) if other == node
    ]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_distinct(together))


def _distinct(devices: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(device for each in devices for device in each.split(",")))

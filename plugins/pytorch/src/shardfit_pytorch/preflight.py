"""One collective on the GPUs before any row is read: a network that does not work says so at once."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from shardfit.engine import WorkerContext
from shardfit.errors import InfeasibleRequestError
from shardfit_pytorch.rendezvous import Peers

_TIMEOUT = timedelta(seconds=90)


def check_gpus(context: WorkerContext, peers: Peers, device: torch.device) -> None:
    """Check that this worker's GPU works and that all GPUs can add up a number. Called on every worker.

    Args:
        context: Of this worker.
        peers: Its line to the others.
        device: Its GPU.

    Raises:
        InfeasibleRequestError: They cannot; says what PyTorch and NCCL said.
    """
    asked = f"using {device} for worker {context.rank}"
    if not torch.cuda.is_available():
        raise InfeasibleRequestError(
            asked, "this PyTorch sees no GPU", "Install PyTorch for CUDA on every node, or set num_gpus=0."
        )
    try:
        torch.cuda.set_device(device)
        ones = torch.ones(1, device=device)
        if context.world_size > 1:
            ones = _summed(context, peers, device, ones)
        found = int(ones.item())
    except (RuntimeError, AssertionError) as error:
        raise InfeasibleRequestError(
            asked,
            f"a first collective failed: {error}",
            "NCCL_DEBUG=INFO tells more; NCCL_SOCKET_IFNAME names the network to use.",
        ) from error
    if found != context.world_size:
        raise InfeasibleRequestError(asked, f"{context.world_size} GPUs added up ones to {found}")


def _summed(context: WorkerContext, peers: Peers, device: torch.device, ones: torch.Tensor) -> torch.Tensor:
    # A name of its own in the store: what it leaves there must not meet the loop's own group.
    store = PrefixStore("shardfit/preflight", peers.store)
    dist.init_process_group(
        "nccl", store=store, rank=context.rank, world_size=context.world_size, timeout=_TIMEOUT, device_id=device
    )
    try:
        dist.all_reduce(ones)
        torch.cuda.synchronize(device)
    finally:
        dist.destroy_process_group()
    return ones

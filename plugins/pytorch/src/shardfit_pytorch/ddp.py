"""Gradients that equal those of one process, though ranks have different numbers of rows."""

# Without postponed annotations: DDP compares those of a hook with the classes themselves.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class RowShare:
    """What the communication hook weighs a rank's gradients by.

    Args:
        step_rows: Returns the rows of this rank in the step that it took last, and those of all ranks together.
        group: The process group; None for the default one.
    """

    step_rows: Callable[[], tuple[int, int]]
    group: Any = None


def weigh_by_rows(share: RowShare, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Sum up a bucket of gradients over all ranks, each weighed by its share of the step's rows.

    The loss of a rank is the mean over its own rows. The plain mean of the ranks' gradients is that of all rows only if
    every rank has as many; this one always is: `n_rank / n_global`, which is DDP's own factor `1 / N` times
    `n_rank * N / n_global`.
    """
    rank_rows, global_rows = share.step_rows()
    gradients = bucket.buffer().mul_(rank_rows / global_rows)
    work = dist.all_reduce(gradients, group=share.group, async_op=True)
    summed: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed


def data_parallel(
    model: torch.nn.Module, step_rows: Callable[[], tuple[int, int]], device: torch.device, **options: Any
) -> DistributedDataParallel:
    """Return the model on its device, wrapped, with gradients that are weighed by rows.

    Args:
        model: The same on every rank.
        step_rows: As for `RowShare`.
        device: Of this rank.
        **options: Passed to `DistributedDataParallel`.
    """
    model = model.to(device)
    if device.type == "cuda":
        options.setdefault("device_ids", [device.index])
    wrapped = DistributedDataParallel(model, **options)
    wrapped.register_comm_hook(RowShare(step_rows, options.get("process_group")), weigh_by_rows)
    return wrapped

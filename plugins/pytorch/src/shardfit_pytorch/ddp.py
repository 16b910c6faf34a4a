"""Gradients that equal those of one process, though ranks have different numbers of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


class RowWeights:
    """Weighs a rank's gradients by its share of the step's rows, before DDP takes their mean over the ranks.

    The loss of a rank is the mean over its own rows. The plain mean of the ranks' gradients is that of all rows only if
    every rank has as many; with each times `n_rank * N / n_global` it always is. Ranks have as many in all steps but a
    few. So gradients are watched in those few alone: a hook in every step, of a parameter or of DDP's communication,
    would wait for Python's lock in a thread that computes gradients.

    Args:
        parameters: Of the model.
        step_rows: Returns the rows of this rank in the step that it took last, and those of all ranks together.
        world_size: Number of ranks.
    """

    def __init__(
        self, parameters: list[torch.nn.Parameter], step_rows: Callable[[], tuple[int, int]], world_size: int
    ) -> None:
        self._parameters, self._step_rows, self._world_size = parameters, step_rows, world_size
        self._watched: list[Any] = []

    def weigh(self, model: torch.nn.Module) -> None:
        """Weigh the gradients of each step of a model."""
        # After a forward pass, not before it: a model that is given a whole batch may be the first to read a column of
        # it, and a batch of a `DataLoader` worker counts as taken only then.
        model.register_forward_hook(self.after_forward)

    def after_forward(self, *_: Any) -> None:
        """Watch the gradients of the step that has begun, if they need a weight; called by the wrapped model."""
        if self._factor() == 1.0:
            for handle in self._watched:
                handle.remove()
            self._watched = []
            return
        for parameter in self._parameters:
            # Frozen ones cannot be watched; those that thaw later are in the next step.
            if parameter.requires_grad and not _is_watched(parameter):
                self._watched.append(parameter.register_hook(self._weigh))  # type: ignore[no-untyped-call]

    def __reduce__(self) -> tuple[Any, ...]:
        # A model that is saved with its wrapper leaves the run behind.
        return RowWeights, ([], _alone, 1)

    def _factor(self) -> float:
        rank_rows, global_rows = self._step_rows()
        return rank_rows * self._world_size / global_rows

    def _weigh(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self._factor()


def _is_watched(parameter: torch.nn.Parameter) -> bool:
    """Return whether its gradient is weighed already; that of a part that two models share must not be twice."""
    hooks = parameter._backward_hooks or {}
    return any(isinstance(getattr(hook, "__self__", None), RowWeights) for hook in hooks.values())


def _alone() -> tuple[int, int]:
    return 1, 1


def data_parallel(
    model: torch.nn.Module, step_rows: Callable[[], tuple[int, int]], device: torch.device, **options: Any
) -> DistributedDataParallel:
    """Return the model on its device, wrapped, with gradients that are weighed by rows.

    Args:
        model: The same on every rank.
        step_rows: As for `RowWeights`.
        device: Of this rank.
        **options: Passed to `DistributedDataParallel`.
    """
    model = model.to(device)
    if device.type == "cuda":
        options.setdefault("device_ids", [device.index])
    # Saves a copy of all gradients, and the time that it takes.
    options.setdefault("gradient_as_bucket_view", True)
    wrapped = DistributedDataParallel(model, **options)
    world_size = dist.get_world_size(options.get("process_group"))
    RowWeights(list(model.parameters()), step_rows, world_size).weigh(wrapped)
    return wrapped

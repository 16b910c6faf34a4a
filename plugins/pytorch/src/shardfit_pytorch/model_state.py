"""The state of a model and its optimizers: taken, copied, and put back, whole or in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor

from shardfit.errors import ArtifactCorruptError, InvalidArgumentError
from shardfit_pytorch.checkpoint_storage import read_parts, write_part

State = dict[str, Any]


def state_of(model: torch.nn.Module | None, optimizers: Sequence[torch.optim.Optimizer]) -> State:
    """Return the state of a model and its optimizers, empty where there is no model.

    Raises:
        InvalidArgumentError: There are optimizers and no model.
    """
    if model is None:
        if optimizers:
            raise InvalidArgumentError(
                "saving or loading an optimizer", "there is no model", "Pass the model that it optimizes, too."
            )
        return {}
    model_state, optimizer_state = get_state_dict(model, list(optimizers))
    return {"model": model_state, "optimizer": optimizer_state}


def is_sharded(state: State) -> bool:
    """Return whether every rank holds a part of it."""
    return any(isinstance(value, DTensor) for value in _leaves(state))


def copied(state: State) -> State:
    """Return a copy of the state in the memory of the CPU, which the loop does not change any more."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    try:
        staged: Any = stager.stage(state)
        return dict(staged)
    finally:
        stager.close()


def load_into(
    model: torch.nn.Module | None, optimizers: Sequence[torch.optim.Optimizer], files: Mapping[str, bytes]
) -> None:
    """Put what `write_part` wrote on every rank into a model and its optimizers; without a model, do nothing.

    Raises:
        InvalidArgumentError: They are not built as they were when it was saved.
        ArtifactCorruptError: A part is torn or missing.
    """
    target = state_of(model, optimizers)
    if model is None:
        return
    try:
        read_parts(target, files)
    except ArtifactCorruptError:
        raise
    except (RuntimeError, ValueError) as error:
        raise InvalidArgumentError(
            "loading a checkpoint into the model and the optimizer",
            f"{type(error).__name__}: {error}",
            "They must be built as they were when it was saved.",
        ) from error
    set_state_dict(model, list(optimizers), model_state_dict=target["model"], optim_state_dict=target["optimizer"])


def _leaves(state: Any) -> list[Any]:
    if isinstance(state, Mapping):
        return [leaf for value in state.values() for leaf in _leaves(value)]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in _leaves(value)]
    return [state]


__all__ = ["copied", "is_sharded", "load_into", "state_of", "write_part"]

"""What this plugin answers. Imports no framework: torch is imported when a trainer is made or a table exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardfit.hookspecs import Exporter, TrainerProvider, hookimpl

if TYPE_CHECKING:
    from shardfit.trainer import Trainer


@hookimpl
def shardfit_trainers() -> Mapping[str, TrainerProvider]:
    """Provide the trainer `pytorch`."""
    return {"pytorch": _make_trainer}


@hookimpl
def shardfit_exporters() -> Mapping[str, Exporter]:
    """Provide the exporter `torch`: a connector as a dataset of tensors."""
    return {"torch": _to_torch_dataset}


def _make_trainer() -> Trainer:
    from shardfit_pytorch.trainer import PyTorchTrainer

    return PyTorchTrainer()


def _to_torch_dataset(connector: Any, **options: Any) -> Any:
    from shardfit_pytorch.data import to_torch_dataset

    return to_torch_dataset(connector, **options)

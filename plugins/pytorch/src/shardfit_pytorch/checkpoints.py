"""Saving the state of a loop while it goes on, and loading it at another number of ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from shardfit.coverage import RowDigest
from shardfit.engine import WorkerContext
from shardfit.errors import ArtifactCorruptError, InvalidArgumentError
from shardfit.trainer import Checkpoint
from shardfit_pytorch.data import Position
from shardfit_pytorch.dataset_tracker import DatasetTracker, Epochs, digest_from_json, digest_to_json
from shardfit_pytorch.outbox import Outbox
from shardfit_pytorch.rendezvous import Peers

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None

_STATE = "state.json"
_FORMAT = 1
_OTHERS_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class RestoredState:
    """What a checkpoint held beside the state of the model and the optimizer, which are loaded in place.

    Args:
        step: Number of the checkpoint, as `save_checkpoint` was given or counted it.
        positions: Dataset name -> where the loop was in it. Datasets go on there by themselves.
        extra: What `save_checkpoint` was given as `extra`.
    """

    step: int
    positions: Mapping[str, Position]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> Position:
        """Where the loop was in the dataset `train`, or in the only one."""
        if "train" in self.positions:
            return self.positions["train"]
        return next(iter(self.positions.values()), Position())


class Checkpoints:
    """The checkpoints of one rank.

    Args:
        context: Of the worker.
        peers: Its line to the others.
        outbox: Sends checkpoints while the loop goes on.
        tracker: Knows the positions.
        resume: The checkpoint to go on from, or None.
    """

    def __init__(
        self,
        context: WorkerContext,
        peers: Peers,
        outbox: Outbox,
        tracker: DatasetTracker,
        resume: Checkpoint | None,
    ) -> None:
        self._context, self._peers = context, peers
        self._outbox, self._tracker = outbox, tracker
        self._resume = resume
        self._step = 0

    def save(
        self,
        model: torch.nn.Module | None,
        optimizer: Optimizers,
        step: int | None,
        extra: Mapping[str, Any],
        wait: bool,
    ) -> int:
        """Copy the state to memory and have it sent; see `TrainingContext.save_checkpoint`."""
        self._outbox.check()
        step = self._next_step(step)
        positions = {name: position.to_json() for name, position in self._tracker.positions().items()}
        header = {"format": _FORMAT, "step": step, "positions": positions, "extra": dict(extra)}
        mine = self._tracker.open_epochs()
        saved = _model_state()
        state = saved.state_of(model, _listed(optimizer))
        sharded = saved.is_sharded(state)
        if self._context.rank:
            self._tell_rows(step, mine)
        if sharded or self._context.rank == 0:
            staged = saved.copied(state)
            self._outbox.send(lambda: self._send(step, staged, header, mine, sharded), replaceable=True)
        if wait:
            self._outbox.flush()
        return step

    def load(self, model: torch.nn.Module | None, optimizer: Optimizers) -> RestoredState | None:
        """Load what the run goes on from into the model and the optimizer; see `TrainingContext.load_checkpoint`."""
        if self._resume is None:
            return None
        files = self._resume.files
        if _STATE not in files:
            raise InvalidArgumentError(
                "going on from a checkpoint", f"found the files {sorted(files)!r}", "It is none of a PyTorch loop."
            )
        header = _header(files[_STATE])
        _model_state().load_into(model, _listed(optimizer), files)
        positions = {name: Position.from_json(value) for name, value in header["positions"].items()}
        # Rows that were taken before count once, whoever took them.
        rows = header["rows"] if self._context.rank == 0 or header["rows"] is None else {}
        self._tracker.restore(positions, None if rows is None else _epochs_from_json(rows))
        self._step = header["step"]
        return RestoredState(header["step"], positions, header["extra"])

    def _next_step(self, step: int | None) -> int:
        following = self._step + 1 if step is None else step
        if following <= self._step:
            raise InvalidArgumentError(
                f"saving checkpoint {following!r}", f"the last one was {self._step}", "Steps only grow."
            )
        self._step = following
        return following

    def _send(self, step: int, state: dict[str, Any], header: dict[str, Any], mine: Epochs, sharded: bool) -> None:
        """Write this worker's part and offer it to the driver. The only place that a checkpoint leaves a worker."""
        rank = self._context.rank
        files = _model_state().write_part(state, rank)
        if rank == 0:
            rows = self._rows_of_all(step, mine)
            told = None if rows is None else _epochs_to_json(rows)
            files[_STATE] = json.dumps({**header, "rows": told}).encode()
        self._context.offer_checkpoint(step, files, from_every_worker=sharded)

    def _tell_rows(self, step: int, mine: Epochs) -> None:
        self._peers.store.set(f"shardfit/rows/{step}/{self._context.rank}", json.dumps(_epochs_to_json(mine)))

    def _rows_of_all(self, step: int, mine: Epochs) -> Epochs | None:
        """Return the rows of the open epochs over all ranks, or None where a rank does not save."""
        keys = [f"shardfit/rows/{step}/{rank}" for rank in range(1, self._context.world_size)]
        if not keys:
            return mine
        try:
            # A connection of its own: the loop's would be blocked meanwhile.
            store = self._peers.store.clone()
            store.wait(keys, _OTHERS_TIMEOUT)
        except torch.distributed.DistError:
            return None
        total: Epochs = {name: dict(epochs) for name, epochs in mine.items()}
        for key in keys:
            for name, epochs in _epochs_from_json(json.loads(store.get(key))).items():
                for epoch, digest in epochs.items():
                    known = total.setdefault(name, {}).get(epoch, RowDigest())
                    total[name][epoch] = known + digest
            store.delete_key(key)
        return total


def _model_state() -> ModuleType:
    """Return what deals with states. It imports half of PyTorch, which loops without checkpoints do not need."""
    return import_module("shardfit_pytorch.model_state")


def _listed(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizer is None:
        return []
    return [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)


def _header(content: bytes) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(content)
        if header["format"] != _FORMAT:
            raise ArtifactCorruptError("reading a checkpoint", f"found format {header['format']!r}")
        return header
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactCorruptError("reading a checkpoint", f"its header is torn: {error!r}") from error


def _epochs_to_json(epochs: Epochs) -> dict[str, dict[str, list[Any]]]:
    return {name: {str(e): digest_to_json(d) for e, d in found.items()} for name, found in epochs.items()}


def _epochs_from_json(value: Mapping[str, Mapping[str, list[Any]]]) -> Epochs:
    return {name: {int(e): digest_from_json(d) for e, d in found.items()} for name, found in value.items()}

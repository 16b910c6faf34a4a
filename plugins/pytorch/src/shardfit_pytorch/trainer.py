"""The PyTorch trainer: the user's loop on every worker, through the small `Trainer` contract.

PyTorch takes seconds to import. The driver needs it for the store that workers meet at, and imports it while they
start.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shardfit.columns import ColumnRoles
from shardfit.coverage import RowDigest
from shardfit.dedicated_process import importing_for_good, is_dedicated
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import CoverageError, InvalidArgumentError, WorkerError
from shardfit.scaling import WorkerLayout
from shardfit.shard_reader import ShardReader
from shardfit.trainer import RunSettings, Trainer, WorkerReport
from shardfit_pytorch.config import PyTorchConfig, configure
from shardfit_pytorch.loop_report import EpochRows, LoopReport

if TYPE_CHECKING:
    from shardfit_pytorch.rendezvous import Meeting


@dataclass(frozen=True)
class LoopModel:
    """What a loop left in its model directory.

    Args:
        files: Name -> content.
    """

    files: Mapping[str, bytes] = field(repr=False)


class PyTorchTrainer(Trainer):
    """Runs a user's loop; it deals rows itself, batch by batch."""

    deals_rows = True

    def configure(self, params: Mapping[str, Any]) -> PyTorchConfig:
        """Return the configuration: the loop and its hyper-parameters."""
        return configure(params)

    def warnings(self, config: PyTorchConfig, roles: ColumnRoles, layout: WorkerLayout) -> tuple[str, ...]:
        """Name what loops should know, once it is clear that the loop can be taken to where it is to run."""
        # Here, since no earlier call knows whether the loop has to travel at all.
        if layout.engine != "inline":
            config.loop.check_pickles()
            _import_meanwhile("shardfit_pytorch.rendezvous")
        return ()

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Meeting]:
        """Hold the store that workers meet at."""
        from shardfit_pytorch.rendezvous import meeting_store

        return meeting_store(workers)

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: PyTorchConfig,
        settings: RunSettings,
        meeting: Meeting,
    ) -> WorkerReport:
        """Run the loop to its end."""
        with importing_for_good():
            if is_dedicated():
                import_module("torch._dynamo")  # Every optimizer imports it.
            from shardfit_pytorch.loop_worker import run_on_worker

        return run_on_worker(context, shards, config, settings, meeting)

    def collect(self, values: Sequence[LoopReport]) -> LoopModel:
        """Return what rank 0 left, once it is clear that the ranks went together and lost no row.

        Raises:
            WorkerError: Ranks took different numbers of steps.
            CoverageError: An epoch had a row too few or too many.
        """
        _check_steps(values)
        _check_epochs(values)
        return LoopModel(values[0].files)

    def save(self, model: LoopModel) -> Mapping[str, bytes]:
        """Return the files of the model directory."""
        return model.files

    def load(self, files: Mapping[str, bytes]) -> LoopModel:
        """Return the files as they are: what they mean is known to the loop's author."""
        return LoopModel(files)

    def predict(self, model: LoopModel, batch: pa.RecordBatch) -> pa.Array:
        """Refuse: what the files of a loop mean is not known here.

        Raises:
            InvalidArgumentError: Always; says what to do instead.
        """
        raise _no_predictions()

    def input_columns(self, model: LoopModel) -> tuple[str, ...]:
        """Refuse, as `predict` does.

        Raises:
            InvalidArgumentError: Always.
        """
        raise _no_predictions()


def _import_meanwhile(module: str) -> None:
    # Whoever needs it before it is there waits for it, and is told what is wrong with it.
    threading.Thread(target=import_module, args=(module,), name="shardfit-import").start()


def _no_predictions() -> InvalidArgumentError:
    return InvalidArgumentError(
        "predicting with a model of the trainer 'pytorch'",
        "a loop leaves files of its own, and only its author knows what they are",
        "Load them from get_model_dir() into the network, and call it on batches of a connector.",
    )


def _check_steps(values: Sequence[LoopReport]) -> None:
    for name in sorted({name for value in values for name in value.steps}):
        steps = [value.steps.get(name, 0) for value in values]
        # A dataset that one rank alone reads, to look at it, makes the others wait for nothing.
        if name == "train" and len(set(steps)) > 1:
            most, fewest = max(steps), min(steps)
            raise WorkerError(
                f"comparing the steps of {len(values)} ranks in dataset {name!r}",
                f"rank {steps.index(most)} took {most} batches and rank {steps.index(fewest)} took {fewest}",
                "Every rank must take the same number of steps, or rows are lost and gradients do not match: "
                "let all ranks leave the loop in the same step.",
            )


def _check_epochs(values: Sequence[LoopReport]) -> None:
    found: dict[tuple[str, int, int], list[EpochRows]] = {}
    for value in values:
        for rows in value.epochs:
            found.setdefault((rows.name, rows.number, rows.epoch), []).append(rows)
    for (name, _, epoch), parts in found.items():
        if len(parts) < len(values) or not all(part.ended for part in parts):
            continue
        handed = RowDigest.total(part.handed for part in parts)
        if handed != parts[0].planned:
            raise CoverageError(
                f"auditing epoch {epoch} of {name!r}",
                f"planned {parts[0].planned}, handed over {handed}",
                "Rows were lost or repeated; the model was discarded.",
            )

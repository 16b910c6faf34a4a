"""The PyTorch trainer: the user's loop on every worker, through the small `Trainer` contract."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import CoverageError, InvalidArgumentError, WorkerError
from shardfit.scaling import WorkerLayout
from shardfit.shard_reader import ShardReader
from shardfit.trainer import RunSettings, Trainer, WorkerReport
from shardfit_pytorch.checkpoints import Checkpoints
from shardfit_pytorch.config import DatasetUse, PyTorchConfig, configure
from shardfit_pytorch.context import RunParts, TrainingContext
from shardfit_pytorch.data import BoundShardedConnector
from shardfit_pytorch.dataset_tracker import DatasetTracker, EpochRows
from shardfit_pytorch.group_keeper import GroupKeeper
from shardfit_pytorch.model_dir import files_in, model_folder
from shardfit_pytorch.outbox import Outbox
from shardfit_pytorch.preflight import check_gpus
from shardfit_pytorch.rendezvous import Meeting, joined, meeting_store
from shardfit_pytorch.run_context import current
from shardfit_pytorch.user_thread import run_loop


@dataclass(frozen=True)
class LoopReport:
    """What one rank ends with.

    Args:
        steps: Dataset name -> batches that its loop took.
        epochs: The rows of each epoch.
        files: What rank 0 left in its model directory; empty on other ranks.
    """

    steps: Mapping[str, int]
    epochs: Sequence[EpochRows]
    files: Mapping[str, bytes] = field(repr=False)


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
        return ()

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Meeting]:
        """Hold the store that workers meet at."""
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
        _set_threads(context, meeting)
        with ExitStack() as stack:
            peers = stack.enter_context(joined(context, meeting))
            folder = stack.enter_context(model_folder(context.rank))
            outbox = stack.enter_context(closing(Outbox()))
            keeper = GroupKeeper()
            tracker = DatasetTracker(context, outbox, keeper)
            checkpoints = Checkpoints(context, peers, outbox, tracker, settings.resume)
            datasets = dict(_datasets(context, shards, config, settings, tracker))
            training = TrainingContext(
                RunParts(context, meeting, config.hyper_params, datasets, folder, outbox, tracker, checkpoints)
            )
            if context.slot.gpus:
                check_gpus(context, peers, training.get_device())

            def loop() -> None:
                with current(training):
                    config.loop(training)

            run_loop(loop, context, peers, keeper, lambda: tracker.total_steps)
            outbox.flush()
            epochs = tracker.report()
            files = files_in(folder) if context.rank == 0 else {}
            return WorkerReport(LoopReport(tracker.steps, epochs, files), _coverage(epochs))

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


def _no_predictions() -> InvalidArgumentError:
    return InvalidArgumentError(
        "predicting with a model of the trainer 'pytorch'",
        "a loop leaves files of its own, and only its author knows what they are",
        "Load them from get_model_dir() into the network, and call it on batches of a connector.",
    )


def _set_threads(context: WorkerContext, meeting: Meeting) -> None:
    # A lone worker is a process with all CPUs, which is what PyTorch takes by itself.
    if context.world_size > 1:
        share = (os.cpu_count() or 1) // meeting.local_world_size(context.rank)
        torch.set_num_threads(context.slot.cpus or max(1, share))


def _datasets(
    context: WorkerContext,
    shards: Mapping[str, ShardReader],
    config: PyTorchConfig,
    settings: RunSettings,
    tracker: DatasetTracker,
) -> Iterator[tuple[str, Any]]:
    uses = config.datasets
    if uses is None:
        uses = {name: DatasetUse(name) for name in shards}
    for name, use in uses.items():
        source = shards[use.name].source
        if not use.sharded:
            yield name, DataConnector.of(source)
            continue
        yield (
            name,
            BoundShardedConnector(
                name,
                source,
                settings.fragments[use.name],
                source.schema(),
                rank=context.rank,
                world_size=context.world_size,
                seed=settings.seed,
                equal=use.equal,
                tracker=tracker,
            ),
        )


def _coverage(epochs: Sequence[EpochRows]) -> dict[str, DatasetCoverage]:
    """Return what this rank was handed in the last whole epoch of each dataset.

    What each rank gets is decided batch by batch; that all of it together is the epoch is checked in `collect`.
    """
    return {rows.name: DatasetCoverage(rows.handed, rows.handed) for rows in epochs if rows.ended}


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

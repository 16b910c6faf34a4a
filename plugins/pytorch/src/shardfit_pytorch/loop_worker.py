"""What a worker does for a loop: meets the others, runs it to its end, and says which rows it took."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

import torch

from shardfit.connector import DataConnector
from shardfit.coverage import DatasetCoverage
from shardfit.engine import WorkerContext
from shardfit.shard_reader import ShardReader
from shardfit.trainer import RunSettings, WorkerReport
from shardfit_pytorch.checkpoints import Checkpoints
from shardfit_pytorch.config import DatasetUse, PyTorchConfig
from shardfit_pytorch.context import RunParts, TrainingContext
from shardfit_pytorch.data import BoundShardedConnector
from shardfit_pytorch.dataset_tracker import DatasetTracker
from shardfit_pytorch.group_keeper import GroupKeeper
from shardfit_pytorch.loop_report import EpochRows, LoopReport
from shardfit_pytorch.model_dir import files_in, model_folder
from shardfit_pytorch.outbox import Outbox
from shardfit_pytorch.preflight import check_gpus
from shardfit_pytorch.rendezvous import Meeting, joined
from shardfit_pytorch.run_context import current
from shardfit_pytorch.user_thread import run_loop


def run_on_worker(
    context: WorkerContext,
    shards: Mapping[str, ShardReader],
    config: PyTorchConfig,
    settings: RunSettings,
    meeting: Meeting,
) -> WorkerReport:
    """Run the loop to its end. Called on every worker, once an attempt; arguments as for `Trainer.run_worker`."""
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

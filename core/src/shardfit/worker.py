"""What every worker does: profile its shards, train on them, predict from them. No engine and no framework here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shardfit.batch_rows import batch_rows
from shardfit.binned_trainer import BinnedTrainer
from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.engine import WorkerContext
from shardfit.events import Phase
from shardfit.memory_meter import measured
from shardfit.prediction_folder import PredictionFolder
from shardfit.profile import Profile
from shardfit.profile.shard import ProfileRequest, profile_shard
from shardfit.shard_plan import Shard
from shardfit.shard_reader import ShardReader
from shardfit.source import DataSource
from shardfit.trainer import TRAIN, RunSettings, Trainer, WorkerReport


@dataclass(frozen=True)
class WorkerShard:
    """One worker's part of one dataset, without the source, which is shared by all workers.

    Args:
        shard: Which rows.
        columns: Which columns.
    """

    shard: Shard
    columns: tuple[str, ...]


def profile_worker(
    context: WorkerContext,
    sources: Mapping[str, DataSource],
    shards: Mapping[str, WorkerShard],
    trainer: BinnedTrainer,
    config: Any,
    request: ProfileRequest,
) -> dict[str, Profile]:
    """Return the profile of each of this worker's shards. Called on every worker, in attempts that find none made.

    Args:
        context: This worker.
        sources: Dataset name -> where its rows are.
        shards: Dataset name -> this worker's part of it.
        trainer: Says what is to be summed over the rows.
        config: What `Trainer.configure` returned.
        request: What to learn.

    Raises:
        InvalidValueError: A value that its column's part forbids; says which row.
        ChangedDataError, UnreadableSourceError: As for `ShardReader.batches`.
    """
    readers = open_shards(context, sources, shards, "profile")
    with measured(context, "profile"):
        return {
            dataset: profile_shard(reader, trainer, config, request, with_terms=dataset == TRAIN)
            for dataset, reader in readers.items()
        }


def train_worker(
    context: WorkerContext,
    sources: Mapping[str, DataSource],
    shards: Mapping[str, WorkerShard],
    trainer: Trainer,
    config: Any,
    settings: RunSettings,
    meeting: Any,
) -> WorkerReport:
    """Train on this worker's shards. Called once an attempt, on every worker.

    Args:
        context: This worker.
        sources: Dataset name -> where its rows are.
        shards: Dataset name -> this worker's part of it.
        trainer: Trains.
        config: What `Trainer.configure` returned, completed with the profile.
        settings: Roles, seed, checkpoints, bins.
        meeting: What `Trainer.rendezvous` yielded.

    Returns:
        What the trainer returned, and the rows that it was handed.
    """
    readers = open_shards(context, sources, shards, "ingest")
    # A `BinnedTrainer` measures its phases one by one.
    meter = nullcontext() if isinstance(trainer, BinnedTrainer) else measured(context, "fit")
    try:
        with meter:
            value = trainer.run_worker(context, readers, config, settings, meeting)
    finally:
        for source in sources.values():
            source.close()
    if isinstance(value, WorkerReport):
        return value
    coverage = {
        dataset: DatasetCoverage(RowDigest.of_shard(reader.shard), reader.handed) for dataset, reader in readers.items()
    }
    return WorkerReport(value, coverage)


def predict_worker(
    context: WorkerContext,
    source: DataSource,
    shard: WorkerShard,
    trainer: Trainer,
    files: Mapping[str, bytes],
    destination: PredictionFolder | None,
) -> list[pa.Array] | int:
    """Return this worker's predictions in global row order, or write them and return how many there are.

    Args:
        context: This worker.
        source: Where the rows are.
        shard: Which of them.
        trainer: Loads the model and predicts.
        files: The model, as `Trainer.save` wrote it.
        destination: Where to write a Parquet file, so that predictions do not stay in memory; None to return them.
    """
    model = trainer.load(files)
    reader = open_shards(context, {"predict": source}, {"predict": shard}, "predict")["predict"]
    try:
        with closing(reader.batches()) as batches:
            predictions = (trainer.predict(model, batch.records) for batch in batches)
            return list(predictions) if destination is None else destination.write(context.rank, predictions)
    finally:
        source.close()


def open_shards(
    context: WorkerContext,
    sources: Mapping[str, DataSource],
    shards: Mapping[str, WorkerShard],
    phase: Phase,
) -> dict[str, ShardReader]:
    """Return a reader for each shard; each tells the driver how far it is.

    Args:
        context: This worker.
        sources: Dataset name -> where its rows are.
        shards: Dataset name -> this worker's part of it.
        phase: What the reading is for, in events.
    """

    def reader(dataset: str, part: WorkerShard) -> ShardReader:
        total = part.shard.rows

        def tell(rows: int) -> None:
            context.progress(phase, rows, total, dataset)

        rows = batch_rows(len(part.columns) + 2 * part.shard.values_per_row)
        source = sources[dataset].for_cpus(max(context.slot.cpus, 1))
        return ShardReader(dataset, source, part.shard, part.columns, rows, tell)

    return {dataset: reader(dataset, part) for dataset, part in shards.items()}

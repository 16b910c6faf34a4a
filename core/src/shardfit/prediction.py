"""Predicting from a table with a trained model: sharded, streamed, in global row order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.engines import current_resources, make_engine
from shardfit.errors import CoverageError
from shardfit.events import Event, EventSink
from shardfit.file_parts import contents
from shardfit.prediction_folder import PredictionFolder
from shardfit.registry import Registry
from shardfit.scaling import ScalingRequest, WorkerLayout
from shardfit.shard_plan import ShardingConstraints, World
from shardfit.source import DataSource
from shardfit.trainer import Trainer
from shardfit.worker import WorkerShard, predict_worker

_TOKEN_BYTES = 6


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """How many workers predict, and with what.

    Args:
        workers: Number of workers, or -1 for all that are useful.
        cpus_per_worker: CPUs of each, or -1.
        use_gpu: True, False, or None to decide from the cluster.
        engine: `inline`, `ray` or `auto`, as in a job.
    """

    workers: int = -1
    cpus_per_worker: int = -1
    use_gpu: bool | None = None
    engine: Literal["auto", "inline", "ray"] = "auto"


def predict(
    trainer: Trainer,
    model: Any,
    data: DataConnector,
    registry: Registry,
    request: WorkerRequest,
    destination: str | None = None,
    observers: Sequence[EventSink] = (),
) -> pa.ChunkedArray | int:
    """Return one prediction for each row of `data`, in its global row order.

    Args:
        trainer: Knows the model.
        model: What the trainer made.
        data: The rows; needs the model's input columns only.
        registry: Where sources, strategies and policies come from.
        request: How many workers.
        destination: Folder to write Parquet files to instead of returning predictions; None to return them.
        observers: Called with every event.

    Returns:
        The predictions, or how many were written.

    Raises:
        DataError: The data lacks a column or cannot be read.
        ArtifactError: The destination exists or cannot be written.
    """
    folder = None if destination is None else PredictionFolder(destination, os.urandom(_TOKEN_BYTES).hex())
    if folder is not None:
        folder.check_new()
    source = data.resolve(registry)
    layout, shards = _plan(source, trainer.input_columns(model), registry, request)
    rows = sum(part.shard.rows for part in shards)

    def tell(event: Event) -> None:
        registry.notify(event, observers)

    try:
        with make_engine(layout.engine).start(layout) as workers:
            shared = [workers.share(value) for value in (source, trainer, contents(trainer.save(model)))]
            arguments = [(shared[0], shard, shared[1], shared[2], folder) for shard in shards]
            parts = workers.run(predict_worker, arguments, tell)
        return _publish(folder, parts, rows) if folder is not None else _joined(parts, rows)
    finally:
        if folder is not None:
            folder.discard()


def _plan(
    source: DataSource, inputs: Sequence[str], registry: Registry, request: WorkerRequest
) -> tuple[WorkerLayout, list[WorkerShard]]:
    columns = ColumnRoles(tuple(inputs)).resolve(source.schema()).features
    fragments = source.fragments()
    rows = sum(fragment.rows for fragment in fragments)
    scaling = ScalingRequest(request.workers, request.cpus_per_worker, request.use_gpu, rows, 4 * rows * len(columns))
    layout = registry.get("scaling_policies", "default").decide(current_resources(engine=request.engine), scaling)
    plan = registry.get("sharding_strategies", "rows")(fragments, World(layout.workers), 0, ShardingConstraints())
    return layout.first(plan.workers), [WorkerShard(shard, columns) for shard in plan.shards(fragments)]


def _publish(folder: PredictionFolder, parts: Sequence[Any], rows: int) -> int:
    _check(sum(parts), rows)
    folder.publish(sum(1 for written in parts if written))
    return rows


def _joined(parts: Sequence[Any], rows: int) -> pa.ChunkedArray:
    chunks = [chunk for part in parts for chunk in part]
    _check(sum(len(chunk) for chunk in chunks), rows)
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([], type=pa.float32())


def _check(predicted: int, rows: int) -> None:
    if predicted != rows:
        raise CoverageError("predicting", f"{predicted} predictions for {rows} rows", "A reader lost or repeated rows.")

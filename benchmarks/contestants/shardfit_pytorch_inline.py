"""shardfit's PyTorch in this process: what runs on one machine without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.task import LABEL, Stopwatch, Task


def train_on_rank(context: Any) -> None:
    """Train on one rank's rows; shardfit runs this on each."""
    import torch

    from benchmarks.pytorch_task import BATCH_ROWS, FEATURES, THREADS, Batches, network, save, train_epochs

    torch.set_num_threads(THREADS)
    given = context.get_hyper_params()
    dataset = context.get_dataset_map()["train"].get_shard().to_torch_dataset(batch_size=BATCH_ROWS)

    def batches() -> Batches:
        return ((batch.stack(FEATURES), batch[LABEL].float()) for batch in dataset)

    # One process needs no gradients of others, here and in the loop by hand.
    model = context.prepare_model(network()) if context.get_world_size() > 1 else network()
    seconds = train_epochs(model, batches, given["epochs"])
    if context.get_rank() == 0:
        save(getattr(model, "module", model), Path(context.get_model_dir(), "model.pt"), seconds)


def run(task: Task, workers: int) -> None:
    """Train on so many ranks, which share the task's cores, and report."""
    watch = Stopwatch()
    from benchmarks.contestants.shardfit_pytorch_inline import train_on_rank
    from benchmarks.pytorch_task import THREADS, finish
    from shardfit import ShardedDataConnector
    from shardfit_pytorch import PyTorchDistributor, PyTorchScalingConfig, WorkerResourceConfig

    watch.lap("start")
    resources = WorkerResourceConfig(num_cpus=THREADS)
    scaling = PyTorchScalingConfig(1, workers, resources)
    result = PyTorchDistributor(train_on_rank, scaling).run(
        {"train": ShardedDataConnector.from_parquet(task.train)},
        {"epochs": task.rounds},
        artifact_stage_location=str(task.scratch / "stage"),
    )
    watch.lap("run")
    finish(task, watch, Path(result.get_model_dir(), "model.pt"))


if __name__ == "__main__":
    run(Task.from_command_line(), workers=1)

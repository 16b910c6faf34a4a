"""Ray Train's TorchTrainer (V2) as its documentation shows it: a Ray dataset, two workers, `iter_torch_batches`."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.task import LABEL, WORKERS, Stopwatch, Task


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on one worker's share of the dataset; Ray Train runs this on each."""
    import ray.train
    import ray.train.torch
    import torch

    from benchmarks.pytorch_task import BATCH_ROWS, FEATURES, THREADS, Batches, network, save, train_epochs

    torch.set_num_threads(THREADS)
    shard = ray.train.get_dataset_shard("train")

    def batches() -> Batches:
        for batch in shard.iter_torch_batches(batch_size=BATCH_ROWS):
            yield torch.stack([batch[name] for name in FEATURES], dim=1), batch[LABEL].float()

    model = ray.train.torch.prepare_model(network())
    seconds = train_epochs(model, batches, config["epochs"])
    if ray.train.get_context().get_world_rank() == 0:
        save(model.module, config["model"], seconds)


def main() -> None:
    """Train and report."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    task, watch = Task.from_command_line(), Stopwatch()
    import ray
    import ray.data
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from benchmarks.pytorch_task import finish

    # Ray Train hangs when its workers reserve every CPU, for its read tasks need one too. So Ray is told of twice the
    # cores that there are; the processes are still held to the real ones.
    ray.init(num_cpus=2 * task.cores, include_dashboard=False, log_to_driver=False)
    watch.lap("start")
    TorchTrainer(
        train_on_worker,
        train_loop_config={
            "epochs": task.rounds,
            "model": task.model,
        },
        datasets={"train": ray.data.read_parquet(str(task.train))},
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(storage_path=str(task.scratch)),
    ).fit()
    ray.shutdown()
    watch.lap("run")
    finish(task, watch, task.model)


if __name__ == "__main__":
    main()

"""Ray Train's XGBoostTrainer (V2) as its documentation shows it: a Ray dataset, two workers, pandas, a DMatrix."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.task import LABEL, PARAMS, WORKERS, Stopwatch, Task


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on one worker's share of the dataset; Ray Train runs this on each."""
    import ray.train
    import xgboost as xgb
    from ray.train.xgboost import RayTrainReportCallback

    began = time.perf_counter()
    table = ray.train.get_dataset_shard("train").materialize().to_pandas()
    matrix = xgb.DMatrix(table.drop(columns=LABEL), label=table[LABEL], nthread=config["threads"])
    config["log"].joinpath(str(ray.train.get_context().get_world_rank())).write_text(str(time.perf_counter() - began))
    xgb.train(
        {**PARAMS, "nthread": config["threads"]},
        matrix,
        num_boost_round=config["rounds"],
        callbacks=[RayTrainReportCallback()],
    )


def main() -> None:
    """Train and report."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    task, watch = Task.from_command_line(), Stopwatch()
    import ray
    import ray.data
    from ray.train import RunConfig, ScalingConfig
    from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

    # Ray Train hangs when its workers reserve every CPU, for its read tasks need one too. So Ray is told of twice the
    # cores that there are; the processes are still held to the real ones.
    ray.init(num_cpus=2 * task.cores, include_dashboard=False, log_to_driver=False)
    watch.lap("start")
    trainer = XGBoostTrainer(
        train_on_worker,
        train_loop_config={"threads": max(1, task.cores // WORKERS), "rounds": task.rounds, "log": task.scratch},
        datasets={"train": ray.data.read_parquet(str(task.train))},
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(storage_path=str(task.scratch)),
    )
    result = trainer.fit()
    watch.lap("train")
    # Reading happens inside `fit`; the slower worker says how long it took.
    watch.phases["data"] = max(float((task.scratch / str(rank)).read_text()) for rank in range(WORKERS))
    watch.phases["train"] -= watch.phases["data"]
    RayTrainReportCallback.get_model(result.checkpoint).save_model(task.model)
    ray.shutdown()
    watch.lap("stop")
    watch.report()


if __name__ == "__main__":
    main()

"""Ray Train's LightGBMTrainer (V2) as its documentation shows it: a Ray dataset, two workers, pandas, a Dataset."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.task import LABEL, LIGHTGBM_PARAMS, WORKERS, Stopwatch, Task


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on one worker's share of the dataset; Ray Train runs this on each."""
    import lightgbm as lgb
    import ray.train
    from ray.train.lightgbm import RayTrainReportCallback, normalize_pandas_for_lightgbm

    began = time.perf_counter()
    table = normalize_pandas_for_lightgbm(ray.train.get_dataset_shard("train").materialize().to_pandas())
    params = {
        **LIGHTGBM_PARAMS,
        "num_threads": config["threads"],
        "tree_learner": "data_parallel",
        "pre_partition": True,
        **ray.train.lightgbm.get_network_params(),
    }
    dataset = lgb.Dataset(table.drop(columns=LABEL), label=table[LABEL])
    config["log"].joinpath(str(ray.train.get_context().get_world_rank())).write_text(str(time.perf_counter() - began))
    lgb.train(params, dataset, num_boost_round=config["rounds"], callbacks=[RayTrainReportCallback()])


def main() -> None:
    """Train and report."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    task, watch = Task.from_command_line(), Stopwatch()
    import ray
    import ray.data
    from ray.train import RunConfig, ScalingConfig
    from ray.train.lightgbm import LightGBMTrainer, RayTrainReportCallback

    # Ray Train hangs when its workers reserve every CPU, for its read tasks need one too. So Ray is told of twice the
    # cores that there are; the processes are still held to the real ones.
    ray.init(num_cpus=2 * task.cores, include_dashboard=False, log_to_driver=False)
    watch.lap("start")
    trainer = LightGBMTrainer(
        train_on_worker,
        train_loop_config={"threads": max(1, task.cores // WORKERS), "rounds": task.rounds, "log": task.scratch},
        datasets={"train": ray.data.read_parquet(str(task.train))},
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(storage_path=str(task.scratch)),
    )
    result = trainer.fit()
    watch.lap("train")
    watch.phases["data"] = max(float((task.scratch / str(rank)).read_text()) for rank in range(WORKERS))
    watch.phases["train"] -= watch.phases["data"]
    RayTrainReportCallback.get_model(result.checkpoint).save_model(task.model)
    ray.shutdown()
    watch.lap("stop")
    watch.report()


if __name__ == "__main__":
    main()

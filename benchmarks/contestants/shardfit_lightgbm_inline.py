"""shardfit's LightGBM in one process, all cores: what runs when nothing is configured on one machine."""

from __future__ import annotations

from benchmarks.task import LABEL, LIGHTGBM_PARAMS, Stopwatch, Task


def run(task: Task, workers: int) -> None:
    """Train on so many workers, which share the task's cores, and report."""
    watch = Stopwatch()
    from shardfit import DataConnector
    from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig

    watch.lap("start")
    estimator = LightGBMEstimator(
        n_estimators=task.rounds,
        params=LIGHTGBM_PARAMS,
        scaling_config=LightGBMScalingConfig(num_workers=workers, num_cpu_per_worker=max(1, task.cores // workers)),
        artifact_stage_location=str(task.scratch / "stage"),
    )
    booster = estimator.fit(dataset=DataConnector.from_parquet(task.train), label_col=LABEL)
    watch.lap("fit")
    booster.save_model(task.model)
    seconds = estimator.result.phases
    watch.phases["start"] += seconds["plan"] + seconds["start"]
    watch.phases["data"] = seconds["profile"]
    watch.phases["train"] = watch.phases.pop("fit") - seconds["plan"] - seconds["start"] - seconds["profile"]
    watch.report()


if __name__ == "__main__":
    run(Task.from_command_line(), workers=1)

"""Plain LightGBM from an Arrow table, its leanest documented way: one process, all cores."""

from __future__ import annotations

from benchmarks.task import LABEL, LIGHTGBM_PARAMS, Stopwatch, Task


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    import lightgbm as lgb
    import pyarrow.parquet as pq

    params = {**LIGHTGBM_PARAMS, "num_threads": task.cores}
    watch.lap("start")
    table = pq.read_table(task.train)
    dataset = lgb.Dataset(table.drop_columns([LABEL]), label=table.column(LABEL), params=params)
    watch.lap("data")
    booster = lgb.train(params, dataset, num_boost_round=task.rounds)
    watch.lap("train")
    booster.save_model(task.model)
    watch.report()


if __name__ == "__main__":
    main()

"""lightgbm.dask as its documentation shows it: a local cluster of two workers, a Dask data frame."""

from __future__ import annotations

from benchmarks.task import LABEL, LIGHTGBM_PARAMS, WORKERS, Stopwatch, Task


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    import dask.dataframe as dd
    import lightgbm as lgb
    from dask.distributed import Client, LocalCluster

    threads = max(1, task.cores // WORKERS)
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=threads, dashboard_address=None, local_directory=str(task.scratch)
    )
    with cluster, Client(cluster) as client:
        watch.lap("start")
        # Persisted first, as XGBoost's contestant is, so that features and labels are divided alike.
        table = dd.read_parquet(str(task.train)).persist()
        watch.lap("data")
        model = lgb.DaskLGBMClassifier(n_estimators=task.rounds, client=client, **LIGHTGBM_PARAMS)
        model.fit(table.drop(columns=LABEL), table[LABEL])
        watch.lap("train")
        model.booster_.save_model(task.model)
    watch.lap("stop")
    watch.report()


if __name__ == "__main__":
    main()

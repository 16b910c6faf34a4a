"""xgboost.dask as its documentation shows it: a local cluster of two workers, a DaskQuantileDMatrix."""

from __future__ import annotations

from benchmarks.task import LABEL, PARAMS, WORKERS, Stopwatch, Task


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    import dask.dataframe as dd
    from dask.distributed import Client, LocalCluster
    from xgboost import dask as dxgb

    threads = max(1, task.cores // WORKERS)
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=threads, dashboard_address=None, local_directory=str(task.scratch)
    )
    with cluster, Client(cluster) as client:
        watch.lap("start")
        # Persisted first: Dask reads several files as one where only the label is asked for, and XGBoost refuses
        # features and labels whose pieces differ.
        table = dd.read_parquet(str(task.train)).persist()
        matrix = dxgb.DaskQuantileDMatrix(client, table.drop(columns=LABEL), table[LABEL])
        watch.lap("data")
        output = dxgb.train(client, {**PARAMS, "nthread": threads}, matrix, num_boost_round=task.rounds)
        watch.lap("train")
        output["booster"].save_model(task.model)
    watch.lap("stop")
    watch.report()


if __name__ == "__main__":
    main()

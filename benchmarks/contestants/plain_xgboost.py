"""Plain XGBoost as most people write it: pandas, a DMatrix, one process, all cores."""

from __future__ import annotations

from benchmarks.task import LABEL, PARAMS, Stopwatch, Task


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    import pandas as pd
    import xgboost as xgb

    watch.lap("start")
    table = pd.read_parquet(task.train)
    matrix = xgb.DMatrix(table.drop(columns=LABEL), label=table[LABEL], nthread=task.cores)
    watch.lap("data")
    booster = xgb.train({**PARAMS, "nthread": task.cores}, matrix, num_boost_round=task.rounds)
    watch.lap("train")
    booster.save_model(task.model)
    watch.report()


if __name__ == "__main__":
    main()

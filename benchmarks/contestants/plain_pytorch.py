"""A loop written by hand over decoded row groups: one process, nothing around it."""

from __future__ import annotations

from benchmarks.task import LABEL, Stopwatch, Task


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    import numpy as np
    import pyarrow.parquet as pq
    import torch

    from benchmarks.pytorch_task import BATCH_ROWS, FEATURES, THREADS, Batches, finish, network, save, train_epochs

    torch.set_num_threads(THREADS)
    watch.lap("start")

    def batches() -> Batches:
        for path in task.files:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                features = np.stack([table[name].to_numpy() for name in FEATURES], axis=1)
                X, y = torch.from_numpy(features), torch.from_numpy(table[LABEL].to_numpy().astype(np.float32))
                for start in range(0, len(X), BATCH_ROWS):
                    yield X[start : start + BATCH_ROWS], y[start : start + BATCH_ROWS]

    model = network()
    save(model, task.model, train_epochs(model, batches, task.rounds))
    watch.lap("run")
    finish(task, watch, task.model)


if __name__ == "__main__":
    main()

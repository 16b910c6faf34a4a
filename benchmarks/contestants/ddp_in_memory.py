"""Bare DDP: two processes, each with its half of the table as tensors in memory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from benchmarks.task import LABEL, WORKERS, Stopwatch, Task


def train_on_rank(rank: int, task: Task, port: int) -> None:
    """Train on every second file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from benchmarks.pytorch_task import BATCH_ROWS, FEATURES, THREADS, Batches, network, save, train_epochs

    torch.set_num_threads(THREADS)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
    table = pa.concat_tables(pq.read_table(path) for path in task.files[rank::WORKERS])
    X = torch.stack([torch.from_numpy(table[name].to_numpy()) for name in FEATURES], dim=1)
    y = torch.from_numpy(table[LABEL].to_numpy().copy()).float()
    del table

    def batches() -> Batches:
        for start in range(0, len(X), BATCH_ROWS):
            yield X[start : start + BATCH_ROWS], y[start : start + BATCH_ROWS]

    model = DistributedDataParallel(network())
    seconds = train_epochs(model, batches, task.rounds)
    if rank == 0:
        save(model.module, task.model, seconds)
    dist.destroy_process_group()


def main() -> None:
    """Train and report."""
    task, watch = Task.from_command_line(), Stopwatch()
    from torch.multiprocessing.spawn import start_processes

    from benchmarks.contestants.ddp_in_memory import train_on_rank
    from benchmarks.pytorch_task import finish

    watch.lap("start")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    start_processes(train_on_rank, (task, port), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    watch.lap("run")
    finish(task, watch, Path(task.model))


if __name__ == "__main__":
    main()

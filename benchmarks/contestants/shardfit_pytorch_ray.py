"""shardfit's PyTorch on a local Ray of two workers, which share the cores."""

from __future__ import annotations

from benchmarks.contestants.shardfit_pytorch_inline import run
from benchmarks.task import WORKERS, Task

if __name__ == "__main__":
    run(Task.from_command_line(), workers=WORKERS)

"""Plans the training of a table that nobody has: 10 TB in 200,000 fragments for 1,000 workers.

python -m benchmarks.large_plan
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from shardfit.cli.tables import show_memory, size
from shardfit.connector import DataConnector
from shardfit.job import Job
from shardfit.memory_meter import peak_bytes
from shardfit.registry import default_registry
from shardfit.run_plan import RunPlan, plan_run
from shardfit.scaling import ClusterResources, Node
from shardfit.source import DataSource, Fragment

BYTES = 10 * 10**12
FRAGMENTS = 200_000
WORKERS = 1_000
COLUMNS = 100
RESULTS = Path(__file__).parent / "results" / "large-plan.json"


class SimulatedSource(DataSource):
    """A table of which only the metadata exists: float32 columns, fragments whose sizes differ by a tenth.

    Args:
        total_bytes: Decoded bytes of all rows.
        fragments: Number of fragments.
        columns: Number of features; there is a label besides.
    """

    def __init__(self, total_bytes: int, fragments: int, columns: int) -> None:
        self._columns = columns
        self._rows = total_bytes // fragments // (4 * (columns + 1))
        self._count = fragments

    def schema(self) -> pa.Schema:
        names = [*(f"f{j:03d}" for j in range(self._columns)), "label"]
        return pa.schema([(name, pa.float32()) for name in names])

    def fragments(self) -> Sequence[Fragment]:
        tenth, width = max(self._rows // 10, 1), 4 * (self._columns + 1)
        sizes = [self._rows - tenth // 2 + (i * 7_919) % tenth for i in range(self._count)]
        return [
            Fragment(f"s3://simulated/part-{i // 8:06d}.parquet", i % 8, rows, rows * width, "1")
            for i, rows in enumerate(sizes)
        ]

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        raise OSError("a simulated table has no rows")

    def describe(self) -> str:
        return f"simulated table of {size(self._rows * self._count * 4 * (self._columns + 1))}"


def plan_large(
    total_bytes: int = BYTES, fragments: int = FRAGMENTS, workers: int = WORKERS, trainer: str = "xgboost"
) -> RunPlan:
    """Return the plan of the simulated table on machines of 16 CPUs and 32 GiB.

    Args:
        total_bytes: Decoded bytes of the table.
        fragments: Number of its fragments.
        workers: Number of machines, one worker each.
        trainer: Name of the trainer.
    """
    nodes = tuple(Node(f"node-{i:04d}", "10.0.0.1", 16.0, memory=32 * 2**30) for i in range(workers))
    fields: dict[str, Any] = {
        "trainer": trainer,
        "data": DataConnector.of(SimulatedSource(total_bytes, fragments, COLUMNS)),
        "columns": {"label": "label"},
    }
    return plan_run(Job(**fields), default_registry(), ClusterResources(nodes, "ray"))


def main() -> None:
    """Plan, print the estimate, and write down what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_plan", description=__doc__)
    parser.parse_args()
    before = peak_bytes()
    began, worked = time.perf_counter(), time.process_time()
    plan = plan_large()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    peak = peak_bytes()
    console = Console(width=150)
    show_memory(console, plan.memory.to_dict())
    train = plan.datasets["train"]
    facts = {
        "bytes": train.bytes,
        "rows": train.shard_plan.rows,
        "fragments": len(train.fragments),
        "workers": plan.layout.workers,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_bytes": peak,
        "peak_bytes_before": before,
        "estimate": dict(plan.memory.phases),
        "disk": plan.memory.disk,
    }
    console.print(f"Planned in {seconds:.1f} s, {cpu_seconds:.1f} s of CPU.")
    console.print(f"This process had {size(peak)} at most, {size(before)} of it before.")
    RESULTS.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The tables of `benchmarks.shapes`, and one training of one of them in a process of its own.

python -m benchmarks.shape_cases NAME --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 2**16


@dataclass(frozen=True)
class Case:
    """A table that is awkward for its shape.

    Args:
        title: What it is, for people.
        trainer: Name of the trainer.
        table: Tables of the same name are the same.
        file_rows: Rows of each file.
        columns: Number of float32 features.
        text_bytes: Of a text in each row, which is no feature.
        group_rows: Rows of a row group.
        fits: How often it is trained, one after another.
        workers: What rows are dealt to in the plan that is looked at beside.
    """

    title: str
    trainer: str
    table: str
    file_rows: tuple[int, ...]
    columns: int = 10
    text_bytes: int = 0
    group_rows: int = GROUP_ROWS
    fits: int = 1
    workers: int = 1


SKEWED = (3_000_000, *[10] * 1_000, 300_000, 1)
CASES = {
    "wide-xgboost": Case("5,000 columns", "xgboost", "wide", (10_000,), 5_000, group_rows=2_000),
    "wide-lightgbm": Case("5,000 columns", "lightgbm", "wide", (10_000,), 5_000, group_rows=2_000),
    "files": Case("20,000 files of 50 rows", "xgboost", "files", (50,) * 20_000),
    "row-group": Case("one row group of 2 GB", "xgboost", "row-group", (20_000_000,), 25, group_rows=20_000_000),
    "text": Case("10 kB of unused text a row", "xgboost", "text", (100_000,), text_bytes=10_000, group_rows=10_000),
    "skew": Case("files of 1 to 3,000,000 rows", "xgboost", "skew", SKEWED, workers=8),
    "fits-xgboost": Case("20 fits in one process", "xgboost", "fits", (500_000,), 28, fits=20),
    "fits-lightgbm": Case("20 fits in one process", "lightgbm", "fits", (500_000,), 28, fits=20),
}


def make_table(case: Case, data: Path) -> Path:
    """Write the files of a case under `data`, unless they are there, and return their folder."""
    folder = data / f"shape-{case.table}"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    making.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(case.file_rows):
        groups = _groups(case, number, rows)
        first = next(groups)
        with pq.ParquetWriter(making / f"{number:05d}.parquet", first.schema, use_dictionary=False) as writer:
            writer.write_table(first, row_group_size=case.group_rows)
            for group in groups:
                writer.write_table(group, row_group_size=case.group_rows)
    making.rename(folder)
    return folder


def _groups(case: Case, number: int, rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, case.group_rows):
        size = min(case.group_rows, rows - start)
        random = np.random.default_rng((number, start))
        columns: dict[str, Any] = {f"f{j}": random.random(size, dtype=np.float32) for j in range(case.columns)}
        columns["label"] = (columns["f0"] + random.random(size, dtype=np.float32) > 1).astype(np.float32)
        if case.text_bytes:
            columns["text"] = pa.array(["x" * case.text_bytes] * size)
        yield pa.table(columns)


def run(case: Case, data: Path) -> dict[str, Any]:
    """Train and return seconds by phase, peaks planned and measured, open files, and sizes after fits.

    Args:
        case: What to train on.
        data: Folder of the generated tables.
    """
    from shardfit.job import Job
    from shardfit.train import train

    source = make_table(case, data)
    resident: list[int] = []
    before = _open_files()
    began = time.perf_counter()
    with TemporaryDirectory(prefix="shardfit-shapes-") as stage:
        fields: dict[str, Any] = {
            "trainer": case.trainer,
            "data": str(source),
            "columns": {"features": [f"f{j}" for j in range(case.columns)], "label": "label"},
            "params": {"n_estimators": 2},
            "engine": "inline",
            "stage": stage,
            "checkpoint_every_seconds": 0,
        }
        for _ in range(case.fits):
            result = train(Job(**fields))
            resident.append(_resident())
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "phases": {name: round(seconds, 2) for name, seconds in result.phases.items()},
        "planned_bytes": result.plan.memory.peak,
        "measured_bytes": max(result.peak_memory.values()),
        "open_files": _open_files() - before,
        "after_fits": [resident[4], resident[-1]] if case.fits > 4 else [],
        "worker_rows": _dealt(case, source),
    }


def _dealt(case: Case, source: Path) -> list[int]:
    """Return the rows of each worker in a plan for several."""
    from shardfit.job import Job
    from shardfit.registry import default_registry
    from shardfit.run_plan import plan_run
    from shardfit.scaling import ClusterResources, Node

    if case.workers == 1:
        return []
    nodes = tuple(Node(f"node-{i}", "10.0.0.1", 1.0) for i in range(case.workers))
    fields: dict[str, Any] = {"trainer": case.trainer, "data": str(source), "columns": {"label": "label"}}
    plan = plan_run(Job(**fields, workers=case.workers), default_registry(), ClusterResources(nodes, "ray"))
    rows: list[int] = plan.datasets["train"].shard_plan.worker_rows.tolist()
    return rows


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(json.dumps(run(CASES[options.name], options.data)))

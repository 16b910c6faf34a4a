"""Sparse features that would not fit if they were made dense, each in a process of its own; writes docs/sparse.md.

python -m benchmarks.sparse                     every shape
python -m benchmarks.sparse --only              none; writes the table anew
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import replace_between

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sparse.json"
PAGE = ROOT / "docs" / "sparse.md"
MARKERS = ("<!-- measured: python -m benchmarks.sparse -->", "<!-- end of measured -->")
ROUNDS, LIMIT_S = 10, 420.0
_CHUNK_ROWS = 50_000


class Shape(NamedTuple):
    """A table of random sparse features.

    Args:
        rows: Number of rows.
        features: Number of features.
        per_row: Values of each row.
        distinct: Different values.
    """

    rows: int
    features: int
    per_row: int
    distinct: int

    @property
    def dense_bytes(self) -> int:
        """Bytes of the features as a float32 matrix."""
        return 4 * self.rows * self.features


SHAPES = {
    "counts": Shape(1_000_000, 10_000, 20, 20),
    "numbers": Shape(200_000, 2_000, 20, 10_000),
    "words": Shape(200_000, 1_000_000, 50, 1),
}


def make_file(shape: Shape, path: Path) -> None:
    """Write the rows as SVMLight text, unless they are there: each feature comes up as often as any other."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    weights = random.normal(size=shape.features)
    stride = shape.features // shape.per_row
    with path.with_suffix(".part").open("w") as file:
        for _ in range(0, shape.rows, _CHUNK_ROWS):
            indices = random.integers(0, stride, (_CHUNK_ROWS, shape.per_row)) + np.arange(shape.per_row) * stride
            values = random.integers(1, shape.distinct + 1, indices.shape)
            labels = (weights[indices] * values).sum(axis=1) > 0
            for label, row, numbers in zip(labels.astype(int).tolist(), indices.tolist(), values.tolist(), strict=True):
                pairs = " ".join(f"{index + 1}:{value}" for index, value in zip(row, numbers, strict=True))
                file.write(f"{label} {pairs}\n")
    path.with_suffix(".part").rename(path)


def run(name: str, path: Path) -> dict[str, Any]:
    """Train on a file in this process; return what it took."""
    from shardfit.columns import ColumnRoles
    from shardfit.connector import DataConnector
    from shardfit.job import Job
    from shardfit.train import train

    shape = SHAPES[name]
    began = time.perf_counter()
    arguments: dict[str, Any] = {
        "trainer": "xgboost",
        "data": DataConnector.from_svmlight(path, features=shape.features),
        "columns": ColumnRoles(("features",), ("label",)),
        "params": {"n_estimators": ROUNDS, "objective": "binary:logistic"},
        "stage": str(path.parent / "stage"),
    }
    result = train(Job(**arguments))
    return {
        "seconds": time.perf_counter() - began,
        "phases": dict(result.phases),
        "planned_bytes": result.plan.memory.peak,
        "planned": dict(result.plan.memory.phases),
        "measured": dict(result.peak_memory),
        "measured_bytes": max(result.peak_memory.values()),
        "file_bytes": path.stat().st_size,
        "values": sum(fragment.values or 0 for fragment in result.plan.datasets["train"].fragments),
    }


def measure(name: str, data: Path) -> dict[str, Any]:
    """Make the file of a shape, train on it in a process of its own, and return what that took.

    Raises:
        RuntimeError: It failed.
    """
    path = data / f"{name}.svm"
    make_file(SHAPES[name], path)
    command = [sys.executable, "-m", "benchmarks.sparse", "--run", name, "--data", str(data)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"{name} exited with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table_of(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| rows x features | values | share | file MiB | dense MiB | planned MiB | measured MiB | all s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        shape = SHAPES[name]
        share = f"{100 * record['values'] / shape.rows / shape.features:.3g} %"
        sizes = [record["file_bytes"], shape.dense_bytes, record["planned_bytes"], record["measured_bytes"]]
        shown = " | ".join(f"{size / 2**20:,.0f}" for size in sizes)
        what = f"{shape.rows:,} x {shape.features:,}"
        lines.append(f"| {what} | {record['values']:,} | {share} | {shown} | {record['seconds']:,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SHAPES, help="shapes to measure (all)")
    parser.add_argument("--run", choices=SHAPES, help="train on one, in this process")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench" / "sparse", help="folder of the generated files")
    options = parser.parse_args(arguments)
    if options.run:
        print(json.dumps(run(options.run, options.data / f"{options.run}.svm")))
        return 0
    records: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in SHAPES if options.only is None else options.only:
        records[name] = measure(name, options.data)
        print(f"{name}: {records[name]}", flush=True)
        RESULTS.write_text(json.dumps({key: records[key] for key in SHAPES if key in records}, indent=1) + "\n")
    table = table_of({key: records[key] for key in SHAPES if key in records})
    PAGE.write_text(replace_between(PAGE.read_text(), *MARKERS, table))
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The shapes that the memory plan is held to, and one training of one of them in a process of its own.

python -m benchmarks.memory_shapes NAME --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Row groups as writers make them: of a few MiB, and of many rows however wide they are.
GROUP_CELLS, FEWEST_GROUP_ROWS = 2**21, 20_000
ROUNDS = 2


@dataclass(frozen=True)
class Shape:
    """One training.

    Args:
        trainer: `xgboost` or `lightgbm`.
        rows: Rows to train on.
        columns: Number of features.
        kind: `float32`, `float64`, `missing` (a tenth of float32 values) or `text` (a quarter of the columns).
        workers: 1 for this process, more for Ray.
        eval_rows: Rows of an evaluation set, or 0.
        classes: Classes of the label.
        storage: Of XGBoost.
    """

    trainer: str
    rows: int
    columns: int
    kind: str = "float32"
    workers: int = 1
    eval_rows: int = 0
    classes: int = 2
    storage: str = "memory"


SHAPES: dict[str, Shape] = {
    "xgboost-1m": Shape("xgboost", 1_000_000, 28),
    "xgboost-4m": Shape("xgboost", 4_000_000, 28),
    "xgboost-8m": Shape("xgboost", 8_000_000, 10),
    "xgboost-missing": Shape("xgboost", 1_000_000, 28, "missing"),
    "xgboost-100": Shape("xgboost", 500_000, 100),
    "xgboost-wider": Shape("xgboost", 100_000, 300, "float64"),
    "xgboost-wide": Shape("xgboost", 20_000, 2_000),
    "xgboost-text": Shape("xgboost", 1_000_000, 20, "text"),
    "xgboost-classes": Shape("xgboost", 1_000_000, 28, classes=5),
    "xgboost-eval": Shape("xgboost", 1_000_000, 28, eval_rows=1_000_000),
    "xgboost-disk": Shape("xgboost", 2_000_000, 28, storage="disk"),
    "xgboost-disk-8m": Shape("xgboost", 8_000_000, 10, storage="disk"),
    "xgboost-two": Shape("xgboost", 2_000_000, 28, workers=2),
    "lightgbm-1m": Shape("lightgbm", 1_000_000, 28),
    "lightgbm-3m": Shape("lightgbm", 3_000_000, 28),
    "lightgbm-8m": Shape("lightgbm", 8_000_000, 10),
    "lightgbm-missing": Shape("lightgbm", 1_000_000, 28, "missing"),
    "lightgbm-60": Shape("lightgbm", 2_000_000, 60),
    "lightgbm-100": Shape("lightgbm", 500_000, 100),
    "lightgbm-wider": Shape("lightgbm", 100_000, 300, "float64"),
    "lightgbm-wide": Shape("lightgbm", 20_000, 2_000),
    "lightgbm-text": Shape("lightgbm", 1_000_000, 20, "text"),
    "lightgbm-eval": Shape("lightgbm", 1_000_000, 28, eval_rows=1_000_000),
    "lightgbm-two": Shape("lightgbm", 2_000_000, 28, workers=2),
}


def make_data(folder: Path, rows: int, shape: Shape) -> Path:
    """Write the rows of a shape to a Parquet file under `folder`, unless it is there, and return its path."""
    size = max(FEWEST_GROUP_ROWS, GROUP_CELLS // shape.columns)
    path = folder / f"{shape.kind}-{rows}x{shape.columns}-{shape.classes}-{size}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".making")
    with pq.ParquetWriter(making, _group(0, shape, 0).schema) as writer:
        for start in range(0, rows, size):
            writer.write_table(_group(min(size, rows - start), shape, start))
    making.rename(path)
    return path


def _group(rows: int, shape: Shape, start: int) -> pa.Table:
    random = np.random.default_rng((rows, shape.columns, start))
    columns: dict[str, Any] = {}
    for j in range(shape.columns):
        values = random.standard_normal(rows, dtype=np.float32)
        if shape.kind == "text" and j % 4 == 0:
            words = np.array([f"category {i:04d}" for i in range(200)])
            columns[f"f{j}"] = pa.array(words[(np.abs(values) * 60).astype(int) % 200].astype(object), pa.string())
            continue
        missing = random.random(rows) < 0.1 if shape.kind == "missing" else None
        columns[f"f{j}"] = pa.array(values.astype("f8" if shape.kind == "float64" else "f4"), mask=missing)
    signal = random.standard_normal(rows)
    labels = np.clip((signal + 2) * shape.classes / 4, 0, shape.classes - 1).astype(np.int8)
    return pa.table(columns | {"label": labels})


def params_of(shape: Shape) -> dict[str, Any]:
    """Return the trainer's parameters."""
    several = shape.classes > 2
    if shape.trainer == "lightgbm":
        objective = {"objective": "multiclass", "num_class": shape.classes} if several else {"objective": "binary"}
        return {**objective, "n_estimators": ROUNDS, "num_leaves": 63, "verbosity": -1}
    objective = {"objective": "multi:softprob", "num_class": shape.classes} if several else {}
    single = {} if several else {"objective": "binary:logistic"}
    return {**objective, **single, "n_estimators": ROUNDS, "max_depth": 6, "storage": shape.storage}


def train_shape(shape: Shape, data: Path) -> dict[str, Any]:
    """Train once and return what was planned and what was measured, bytes by phase."""
    from shardfit.job import Job
    from shardfit.train import train

    source = make_data(data, shape.rows, shape)
    evals = {"held_out": str(make_data(data, shape.eval_rows, shape))} if shape.eval_rows else {}
    categorical = [f"f{j}" for j in range(0, shape.columns, 4)] if shape.kind == "text" else []
    with TemporaryDirectory(prefix="shardfit-memory-") as stage:
        fields: dict[str, Any] = {
            "trainer": shape.trainer,
            "data": str(source),
            "evals": evals,
            "columns": {"label": "label", "categorical": categorical},
            "params": params_of(shape),
            "workers": shape.workers,
            "engine": "inline" if shape.workers == 1 else "ray",
            "stage": stage,
            "checkpoint_every_seconds": 0,
        }
        result = train(Job(**fields))
    memory = result.plan.memory
    return {
        "planned": dict(memory.phases),
        "measured": dict(result.peak_memory),
        "parts": {part.name: [part.bytes, list(part.phases)] for part in memory.parts},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only-data", action="store_true")
    options = parser.parse_args()
    chosen = SHAPES[options.name]
    if options.only_data:
        for count in filter(None, (chosen.rows, chosen.eval_rows)):
            make_data(options.data, count, chosen)
        print("{}")
        sys.exit(0)
    print(json.dumps(train_shape(chosen, options.data)))

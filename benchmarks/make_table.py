"""Makes the table of the benchmark: the same bytes for the same number of rows, a chunk of memory at a time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.task import LABEL

COLUMNS = 28
FILES = 8
GROUP_ROWS = 125_000
HELD_OUT_ROWS = 200_000
SEED = 20_130_101
SCALE = 1.2

Matrix = npt.NDArray[np.float32]


def score(X: Matrix) -> npt.NDArray[np.float64]:
    """Return the log-odds of a positive label: waves, bends and products, which no linear model finds.

    Nothing jumps, and each column matters also without the others: else the AUC of any model moves by thousandths
    with the place of one cut point, and models that are equally good look different.

    Args:
        X: Features, float32, shape [28, rows].

    Returns:
        float64, shape [rows].
    """
    linear = sum(weight * X[column] for weight, column in ((0.9, 11), (-0.7, 12), (0.5, 13), (0.4, 14)))
    bends = 1.2 * np.tanh(2 * X[6]) - 0.8 * np.tanh(X[7]) + np.sin(2 * X[2]) + 0.8 * np.abs(X[3])
    products = 0.7 * (X[0] + 1) * (X[1] + 1) + 0.4 * np.maximum(X[4], 0) * np.exp(0.5 * X[5])
    odds: npt.NDArray[np.float64] = SCALE * (linear + bends + products - 1.7).astype(np.float64)
    return odds


def make_group(rows: int, seed: tuple[int, ...]) -> pa.Table:
    """Return one row group: 28 float32 features, half of them noise, and an int8 label."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((COLUMNS, rows), dtype=np.float32)
    positive = random.random(rows) < 1.0 / (1.0 + np.exp(-score(X)))
    columns: dict[str, Any] = {f"f{column:02d}": X[column] for column in range(COLUMNS)}
    return pa.table(columns | {LABEL: positive.astype(np.int8)})


def write_file(path: Path, rows: int, seed: tuple[int, ...]) -> None:
    """Write one Parquet file of `rows` rows in row groups of 125,000."""
    sizes = [min(GROUP_ROWS, rows - start) for start in range(0, rows, GROUP_ROWS)]
    with pq.ParquetWriter(path, make_group(0, seed).schema) as writer:
        for group, size in enumerate(sizes):
            writer.write_table(make_group(size, (*seed, group)), row_group_size=GROUP_ROWS)


def make_table(folder: Path, rows: int) -> tuple[Path, Path]:
    """Make the table under `folder` unless it is there, and return where it is.

    Args:
        folder: Made when missing.
        rows: Rows to train on, dealt evenly to 8 files; at least 8.

    Returns:
        The folder of the training files, and the file of 200,000 rows that nobody trains on.
    """
    place = folder / f"rows-{rows}"
    train, held_out, done = place / "train", place / "held_out.parquet", place / "done"
    if not done.exists():
        train.mkdir(parents=True, exist_ok=True)
        for file in range(FILES):
            file_rows = rows * (file + 1) // FILES - rows * file // FILES
            write_file(train / f"part-{file}.parquet", file_rows, (SEED, file))
        write_file(held_out, HELD_OUT_ROWS, (SEED, FILES))
        done.touch()
    return train, held_out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=4_000_000)
    options = parser.parse_args()
    print(*make_table(options.folder, options.rows))

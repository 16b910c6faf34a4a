"""Tables that are hard to divide: sorted by time, in uneven files, with whatever makes models depend on workers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = ("drift", "coarse", "normal", "rare", "shop", "kind")
CATEGORICAL = ("shop", "kind")


def awkward_table(rows: int, seed: int = 0) -> pa.Table:
    """Return a table with features, a binary label `late`, a number `delay`, classes `grade`, weights and groups.

    `drift` grows with the row number and is missing in 7 % of the rows; `coarse` has five values; `rare` is zero but
    for one row in 500; category `shop` has a value that lives in the last hundredth of the rows only; the share of
    positive labels is no dyadic fraction.

    Args:
        rows: Number of rows, 100 or more.
        seed: Of the generator.
    """
    random = np.random.default_rng(seed)
    position = np.arange(rows) / rows
    drift = position * 10 + random.normal(size=rows)
    coarse = random.integers(0, 5, rows).astype(np.float64)
    normal = random.normal(size=rows)
    rare = np.where(random.random(rows) < 0.002, random.lognormal(size=rows), 0.0)
    shop = np.where(position > 0.99, "z-late", random.choice(["a", "b", "c"], rows))
    kind = random.choice([10, 20, 30], rows)
    score = (
        np.sin(drift)
        + 0.4 * coarse * normal
        + 3 * (rare > 0)
        + (shop == "b")
        - (kind == 20)
        + random.normal(size=rows) * 0.5
    )
    return pa.table(
        {
            "drift": pa.array(drift.astype(np.float32), mask=random.random(rows) < 0.07),
            "coarse": coarse,
            "normal": pa.array(normal, mask=random.random(rows) < 0.03),
            "rare": rare,
            "shop": pa.array(shop),
            "kind": pa.array(kind),
            "late": (score > 0.713).astype(np.float32),
            "delay": score,
            "grade": np.clip(np.round(np.abs(score)), 0, 2).astype(np.int32),
            "weight": random.random(rows).astype(np.float32) + 0.1,
            "query": np.cumsum(random.random(rows) < 0.1),
        }
    )


def write_unevenly(table: pa.Table, folder: Path, seed: int = 0) -> list[str]:
    """Write a table as Parquet files of very different sizes, in row order, and return their paths.

    Args:
        table: The rows.
        folder: Made if it is not there.
        seed: Of the sizes.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.unique(np.concatenate([[0, table.num_rows], (random.random(4) ** 3 * table.num_rows).astype(int)]))
    paths = []
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        path = folder / f"part-{number:03d}.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=max(int(random.integers(50, 3000)), 1))
        paths.append(str(path))
    return paths

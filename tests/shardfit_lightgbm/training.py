"""How the tests of the LightGBM plugin train: the awkward table, here or on threads, and what they compare."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from benchmarks.invariance_cases import invariance_table
from shardfit.columns import ColumnRoles
from shardfit.job import Job
from shardfit.run import TrainResult
from shardfit.testing.tables import CATEGORICAL, FEATURES
from shardfit.testing.worker_threads import train_on_threads

ROLES = ColumnRoles(FEATURES, ("delay",), categorical=CATEGORICAL)


def table(rows: int = 4_000, seed: int = 0) -> pa.Table:
    """Return a table with labels for every objective."""
    return invariance_table(rows, seed)


def trained(data: object, workers: int = 1, roles: ColumnRoles = ROLES, **changes: Any) -> TrainResult:
    """Train six rounds, on threads."""
    params = {"num_iterations": 6, "num_leaves": 15, **changes.pop("params", {})}
    registry = changes.pop("registry", None)
    observers = changes.pop("observers", ())
    fields: dict[str, Any] = {"checkpoint_every_seconds": None, **changes}
    job = Job(**{"trainer": "lightgbm", "data": data, "columns": roles, "params": params, **fields})
    return train_on_threads(job, workers, registry=registry, observers=observers)


def trees_of(result: TrainResult) -> str:
    """Return the trees of a model as text: features, thresholds, leaf values, counts."""
    text: str = result.model.text
    return text[text.index("\nTree=0") : text.index("\nend of trees")]


def encoded(result: TrainResult, rows: pa.Table) -> np.ndarray[Any, Any]:
    """Return rows as the booster takes them: floats, categories as codes; float32, shape [rows, features]."""
    spec = result.model.spec
    records = rows.combine_chunks().to_batches()[0]
    return np.asarray(spec.encode(records.select(list(spec.roles.features))))


def plain_dataset(result: TrainResult, rows: pa.Table, label: str, weight: str | None = None) -> lgb.Dataset:
    """Return rows as LightGBM alone would take them."""
    categorical = [i for i, cast in enumerate(result.model.spec.feature_casts) if cast.rule == "category"]
    return lgb.Dataset(
        encoded(result, rows).astype(np.float64),
        rows[label].to_numpy().astype(np.float32),
        weight=None if weight is None else rows[weight].to_numpy(),
        categorical_feature=categorical,
        free_raw_data=False,
    )

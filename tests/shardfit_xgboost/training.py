"""How the tests of the XGBoost plugin train: the awkward table, here or on threads, and what they compare."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb

from benchmarks.invariance_cases import invariance_table
from shardfit.columns import ColumnRoles
from shardfit.job import Job
from shardfit.run import TrainResult
from shardfit.testing.tables import CATEGORICAL, FEATURES
from shardfit.testing.worker_threads import train_on_threads

ROLES = ColumnRoles(FEATURES, ("delay",), categorical=CATEGORICAL)

Trees = dict[str, Any]


def table(rows: int = 4_000, seed: int = 0) -> pa.Table:
    """Return a table with labels for every objective."""
    return invariance_table(rows, seed)


def trained(data: object, workers: int = 1, roles: ColumnRoles = ROLES, **changes: Any) -> TrainResult:
    """Train six rounds, on threads."""
    params = {"n_estimators": 6, "max_depth": 4, **changes.pop("params", {})}
    registry = changes.pop("registry", None)
    job = Job(**{"trainer": "xgboost", "data": data, "columns": roles, "params": params, **changes})
    return train_on_threads(job, workers, registry=registry)


def model_of(booster: xgb.Booster) -> tuple[Trees, str]:
    """Return the trees of a booster and its initial score."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    return learner["gradient_booster"], learner["learner_model_param"]["base_score"]


def tree_list(booster: xgb.Booster) -> list[Trees]:
    """Return the trees alone, one after another."""
    trees, _ = model_of(booster)
    found: list[Trees] = trees.get("gbtree", trees)["model"]["trees"]
    return found


def plain_matrix(result: TrainResult, rows: pa.Table, **more: Any) -> xgb.DMatrix:
    """Return the rows as a plain matrix, as XGBoost alone would take them."""
    spec = result.model.spec
    records = rows.combine_chunks().to_batches()[0]
    types = ["c" if cast.rule == "category" else "q" for cast in spec.feature_casts]
    features = np.asarray(spec.encode(records.select(list(spec.roles.features))))
    return xgb.DMatrix(
        features, feature_names=list(spec.roles.features), feature_types=types, enable_categorical=True, **more
    )

"""What LightGBM's own tests ask of its Dask trainer, asked of two and three workers here: data, parameters, limits."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.datasets import make_blobs, make_regression
from sklearn.metrics import accuracy_score, log_loss, r2_score

from shardfit.columns import ColumnRoles
from tests.shardfit_lightgbm.training import trained

PARAMS = {"num_iterations": 50, "num_leaves": 31}
CENTERS = [[-4, -4], [4, 4], [-4, 4]]

Array = np.ndarray[Any, Any]


def predictions(features: Array, labels: Array, workers: int, group: Array | None = None, **params: Any) -> Array:
    names = [f"f{column}" for column in range(features.shape[1])]
    columns = {name: features[:, j].astype(np.float32) for j, name in enumerate(names)}
    columns |= {"y": labels.astype(np.float32)} | ({} if group is None else {"query": group})
    roles = ColumnRoles(tuple(names), ("y",), group=None if group is None else "query")
    result = trained(pa.table(columns), workers, roles, params={**PARAMS, **params})
    found: Array = result.model.booster().predict(features.astype(np.float32))
    return found


# That models of two and of three workers are the same: test_invariance.py, test_invariance_table.py.
@pytest.mark.parametrize(("classes", "workers"), [(2, 3), (3, 2)])
def test_blobs_are_classified_as_on_one_process(classes: int, workers: int) -> None:
    features, labels = make_blobs(n_samples=1000, centers=CENTERS[:classes], random_state=42)
    params = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": 3}
    found = predictions(features, labels, workers, **params)
    alone = lgb.train({**PARAMS, **params, "verbosity": -1}, lgb.Dataset(features, labels)).predict(features)
    chosen = (found > 0.5).astype(int) if classes == 2 else found.argmax(axis=1)
    assert accuracy_score(labels, chosen) == 1.0
    assert log_loss(labels, found) <= log_loss(labels, alone) + 0.01


def test_a_regression_is_as_good_as_on_one_process() -> None:
    features, labels = make_regression(n_samples=1000, n_features=4, n_informative=2, random_state=42)
    found = predictions(features, labels, 3, objective="regression")
    alone = lgb.train({**PARAMS, "verbosity": -1}, lgb.Dataset(features, labels)).predict(features)
    assert r2_score(labels, found) >= r2_score(labels, alone) - 0.01
    np.testing.assert_allclose(found, labels, rtol=0.5, atol=50.0)


def test_a_ranking_orders_rows_as_on_one_process() -> None:
    random = np.random.default_rng(42)
    sizes = random.integers(5, 15, 100)
    query = np.repeat(np.arange(100), sizes)
    features = random.normal(size=(len(query), 4))
    labels = np.clip(np.round(features[:, 0] + features[:, 1] + 0.3 * random.normal(size=len(query)) + 1), 0, 4)
    found = predictions(features, labels, 2, query, objective="lambdarank")
    params = {**PARAMS, "objective": "lambdarank", "verbosity": -1}
    alone = lgb.train(params, lgb.Dataset(features, labels, group=sizes)).predict(features)
    assert spearmanr(found, alone).correlation > 0.8
    assert spearmanr(found, labels).correlation > 0.8

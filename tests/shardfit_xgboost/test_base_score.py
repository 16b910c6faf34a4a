"""The initial score from exact sums is the one that XGBoost finds on one process, and so are the trees after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from benchmarks.invariance_cases import squared_error
from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidArgumentError
from shardfit.run import TrainResult
from shardfit.testing.tables import FEATURES
from shardfit_xgboost.objectives import _START
from tests.shardfit_xgboost.training import ROLES, plain_matrix, table, trained, tree_list

TABLE = table(4_000)
GROUPS = np.bincount(TABLE["query"].to_numpy())
GROUPS = GROUPS[GROUPS > 0]
LABELS: dict[str, str] = {
    "reg:squaredlogerror": "amount",
    "reg:logistic": "share",
    "reg:gamma": "amount",
    "reg:tweedie": "claims",
    "count:poisson": "claims",
    "binary:logistic": "late",
    "binary:logitraw": "late",
    "binary:hinge": "late",
    "multi:softmax": "grade",
    "multi:softprob": "grade",
    "rank:ndcg": "grade",
    "rank:map": "late",
    "rank:pairwise": "grade",
}
QUANTILES = {"reg:absoluteerror", "reg:quantileerror"}


def base_scores(booster: xgb.Booster) -> np.ndarray:
    text = json.loads(booster.save_raw("json"))["learner"]["learner_model_param"]["base_score"]
    return np.atleast_1d(np.array(json.loads(text), dtype=np.float64))


def automatic(result: TrainResult, rows: pa.Table, params: dict[str, Any]) -> np.ndarray:
    """Return what XGBoost alone starts from, on the same rows."""
    roles = result.plan.roles
    labels = np.stack([rows[name].to_numpy().astype(np.float32) for name in roles.label], axis=1).squeeze()
    more: dict[str, Any] = {"label": labels}
    if roles.group is not None:
        more["group"] = GROUPS
    elif roles.weight is not None:
        more["weight"] = rows[roles.weight].to_numpy()
    data = plain_matrix(result, rows, **more)
    return base_scores(xgb.train({**params, "disable_default_eval_metric": True}, data, 1))


def starts_of(roles: ColumnRoles, params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    result = trained(TABLE, roles=roles, params={**params, "n_estimators": 1})
    return base_scores(result.model.booster()), automatic(result, TABLE, params)


@pytest.mark.parametrize("weight", [None, "weight", "some_weight"])
@pytest.mark.parametrize("objective", sorted(_START))
def test_the_initial_score_is_that_of_xgboost_on_one_process(objective: str, weight: str | None) -> None:
    params: dict[str, Any] = {"objective": objective}
    if objective.startswith("multi:"):
        params["num_class"] = 3
    if objective == "reg:quantileerror":
        params["quantile_alpha"] = 0.3
    roles = replace(ROLES, label=(LABELS.get(objective, "delay"),), weight=weight)
    if objective.startswith("rank:"):
        if weight is not None:
            roles = replace(roles, weight="group_weight")
        roles = replace(roles, group="query")
    found, expected = starts_of(roles, params)
    # Neighbouring labels are closer than this, and any of them between is a quantile.
    tolerance = 2e-2 if objective in QUANTILES else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weight", [None, "weight"])
@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:pseudohubererror", "reg:absoluteerror"])
def test_each_output_has_its_own_initial_score(objective: str, weight: str | None) -> None:
    roles = replace(ROLES, label=("delay", "amount", "share"), weight=weight)
    found, expected = starts_of(roles, {"objective": objective})
    assert len(found) == 3
    tolerance = 2e-2 if objective in QUANTILES else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_each_level_of_a_quantile_objective_has_its_own_initial_score() -> None:
    found, expected = starts_of(ROLES, {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]})
    assert len(found) == 3
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)


def test_the_slope_of_a_huber_objective_changes_the_initial_score_as_in_xgboost() -> None:
    found, expected = starts_of(ROLES, {"objective": "reg:pseudohubererror", "huber_slope": 0.4})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_quantile_objective_needs_its_level() -> None:
    with pytest.raises(InvalidArgumentError, match="quantile_alpha"):
        trained(TABLE, params={"objective": "reg:quantileerror"})


def test_a_function_as_objective_starts_where_xgboost_does() -> None:
    result = trained(TABLE, params={"objective": squared_error, "n_estimators": 1})
    data = plain_matrix(result, TABLE, label=TABLE["delay"].to_numpy())
    alone = xgb.train({"disable_default_eval_metric": True}, data, 1, obj=squared_error)
    assert base_scores(result.model.booster()).tolist() == base_scores(alone).tolist()


def test_a_given_initial_score_is_kept() -> None:
    result = trained(TABLE, params={"base_score": 0.125})
    assert base_scores(result.model.booster()).tolist() == [0.125]


@pytest.fixture(scope="module")
def coarse() -> pa.Table:
    """At most 200 distinct values a feature, so that the cut points are all of them, as XGBoost's own would be."""
    rows = TABLE
    for name in FEATURES[:4]:
        values = np.round(rows[name].to_pandas().to_numpy(dtype=np.float64) * 8) / 8
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, from_pandas=True))
        assert len(np.unique(values)) <= 200
    return rows


@pytest.mark.parametrize(
    ("label", "params"),
    [
        ("delay", {}),
        ("late", {"objective": "binary:logistic", "max_depth": 6, "reg_alpha": 0.1}),
        ("grade", {"objective": "multi:softprob", "num_class": 3}),
        ("delay", {"grow_policy": "lossguide", "max_leaves": 20, "max_depth": 0}),
        ("delay", {"objective": "reg:pseudohubererror", "monotone_constraints": {"normal": 1}}),
    ],
    ids=["squarederror", "logistic", "softprob", "lossguide", "huber"],
)
@pytest.mark.parametrize("weight", [None, "weight"])
def test_on_the_same_bins_the_trees_are_those_of_xgboost_alone(
    coarse: pa.Table, label: str, params: dict[str, Any], weight: str | None, tmp_path: Path
) -> None:
    result = trained(
        coarse,
        roles=replace(ROLES, label=(label,), weight=weight),
        params={**params, "n_estimators": 10},
        stage=str(tmp_path),
    )
    start = base_scores(result.model.booster()).tolist()
    more = {} if weight is None else {"weight": coarse[weight].to_numpy()}
    data = plain_matrix(result, coarse, label=coarse[label].to_numpy(), **more)
    given = {"tree_method": "hist", "nthread": 1, "max_depth": 4, **params}
    given["base_score"] = start[0] if len(start) == 1 else start
    alone = xgb.train(given, data, 10)
    assert tree_list(result.model.booster()) == tree_list(alone)


@pytest.mark.parametrize("weight", [None, "weight"])
@pytest.mark.parametrize(
    ("label", "params"),
    [
        ("claims", {"objective": "count:poisson"}),
        ("claims", {"objective": "count:poisson", "max_delta_step": 0.3}),
        ("amount", {"objective": "reg:gamma"}),
        ("claims", {"objective": "reg:tweedie", "tweedie_variance_power": 1.3}),
        ("grade", {"objective": "multi:softprob", "num_class": 3}),
    ],
    ids=["poisson", "poisson with a step", "gamma", "tweedie", "softprob with rows without weight"],
)
def test_where_shardfit_computes_the_gradients_the_model_is_that_of_xgboost_alone_but_for_rounding(
    coarse: pa.Table, label: str, params: dict[str, Any], weight: str | None
) -> None:
    if label == "grade":
        weight = "some_weight"
    rows = replace(ROLES, label=(label,), weight=weight)
    result = trained(coarse, roles=rows, params={**params, "n_estimators": 4, "max_depth": 3})
    start = base_scores(result.model.booster()).tolist()
    more = {} if weight is None else {"weight": coarse[weight].to_numpy()}
    data = plain_matrix(result, coarse, label=coarse[label].to_numpy(), **more)
    given = {"tree_method": "hist", "nthread": 1, "max_depth": 3, **params}
    alone = xgb.train({**given, "base_score": start[0] if len(start) == 1 else start}, data, 4)
    np.testing.assert_allclose(result.model.booster().predict(data), alone.predict(data), rtol=1e-4)

"""Where rows start from: the scores of LightGBM on one process, kept in the published model; and how good that is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.objectives import _START
from tests.shardfit_lightgbm.training import ROLES, encoded, plain_dataset, table, trained

TABLE, HELD_OUT = table(2_000), table(1_000, seed=1)
LABELS = {
    "binary": "late",
    "multiclass": "grade",
    "multiclassova": "grade",
    "poisson": "claims",
    "tweedie": "claims",
    "gamma": "amount",
    "cross_entropy": "share",
    "cross_entropy_lambda": "share",
}
CLASSES = {"multiclass", "multiclassova"}
RANKS = {"lambdarank", "rank_xendcg"}
# No row can leave the root, so that a model is its start.
UNSPLIT = {"min_data_in_leaf": 2_000, "num_iterations": 1}


def of(objective: str, weight: str | None, **params: Any) -> tuple[Any, dict[str, Any]]:
    roles = replace(ROLES, label=(LABELS.get(objective, "grade" if objective in RANKS else "delay"),), weight=weight)
    if objective in RANKS:
        roles = replace(roles, group="query")
    return roles, {"objective": objective, **({"num_class": 3} if objective in CLASSES else {}), **params}


@pytest.mark.parametrize("weight", [None, "weight", "some_weight"])
@pytest.mark.parametrize("objective", sorted(_START))
def test_the_initial_score_is_that_of_lightgbm_on_one_process(objective: str, weight: str | None) -> None:
    roles, params = of(objective, weight)
    if objective == "cross_entropy_lambda" and weight == "some_weight":
        with pytest.raises(InvalidValueError, match="weight"):
            trained(TABLE, 2, roles, params=params)
        return
    result = trained(TABLE, 2, roles, params={**params, **UNSPLIT})
    data = plain_dataset(result, TABLE, roles.label[0], weight)
    if objective in RANKS:
        data.set_group(np.unique(TABLE["query"].to_numpy(), return_counts=True)[1])
    alone = lgb.train({**params, **UNSPLIT, "verbosity": -1, "feature_pre_filter": False}, data, 1)
    few = encoded(result, TABLE.slice(0, 3))
    expected, found = (booster.predict(few, raw_score=True) for booster in (alone, result.model.booster()))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("regression", {"reg_sqrt": True}),
        ("binary", {"sigmoid": 2.5}),
        ("multiclassova", {"sigmoid": 0.4}),
        ("quantile", {"alpha": 0.2}),
        ("binary", {"scale_pos_weight": 3.0}),
        ("binary", {"is_unbalance": True}),
    ],
)
@pytest.mark.parametrize("weight", [None, "weight"])
def test_parameters_move_it_as_in_lightgbm(objective: str, changes: dict[str, Any], weight: str | None) -> None:
    roles, params = of(objective, weight, **changes)
    result = trained(TABLE, 2, roles, params={**params, **UNSPLIT})
    data = plain_dataset(result, TABLE, roles.label[0], weight)
    alone = lgb.train({**params, **UNSPLIT, "verbosity": -1, "feature_pre_filter": False}, data, 1)
    few = encoded(result, TABLE.slice(0, 3))
    np.testing.assert_allclose(result.model.booster().predict(few), alone.predict(few), rtol=1e-6)


@pytest.mark.parametrize(
    ("objective", "metric", "weight"),
    [
        ("regression", "l2", "weight"),
        ("binary", "binary_logloss", None),
        ("multiclass", "multi_logloss", None),
        ("poisson", "poisson", "weight"),
        ("regression_l1", "l1", None),
        ("lambdarank", "ndcg@5", None),
    ],
)
def test_a_model_is_about_as_good_as_that_of_lightgbm_alone(objective: str, metric: str, weight: str | None) -> None:
    more = {"num_iterations": 40, "metric": metric.split("@")[0], "learning_rate": 0.05, "eval_at": [5]}
    roles, params = of(objective, weight, **more)
    result = trained(TABLE, 1, roles, params=params, evals={"held": HELD_OUT})
    sets = [plain_dataset(result, rows, roles.label[0], weight) for rows in (TABLE, HELD_OUT)]
    if objective in RANKS:
        for rows, data in zip((TABLE, HELD_OUT), sets, strict=True):
            data.set_group(np.unique(rows["query"].to_numpy(), return_counts=True)[1])
    history: dict[str, Any] = {}
    lgb.train(
        {"num_leaves": 15, **params, "verbosity": -1},
        sets[0],
        valid_sets=[sets[1]],
        valid_names=["held"],
        callbacks=[lgb.record_evaluation(history)],
    )
    found, alone = result.metrics[f"held-{metric}"], history["held"][metric]
    if metric.startswith("ndcg"):
        assert max(found) > max(alone) * 0.98
    else:
        assert min(found) < min(alone) + 0.01 * abs(min(alone))
    # Of the same data, the first round is nearly the same.
    assert found[0] == pytest.approx(alone[0], rel=0.01)


def test_the_published_booster_predicts_what_the_estimator_predicts() -> None:
    for objective in ("regression", "binary", "multiclass"):
        _, params = of(objective, None)
        estimator = LightGBMEstimator(8, params=params, scaling_config=LightGBMScalingConfig(1, 1, engine="inline"))
        label = LABELS.get(objective, "delay")
        booster = estimator.fit(TABLE, ROLES.features, label, categorical_cols=ROLES.categorical, eval_set=HELD_OUT)
        predicted = np.array(estimator.predict(HELD_OUT).to_pylist())
        np.testing.assert_array_equal(predicted, booster.predict(encoded(estimator.result, HELD_OUT)))
        # What was measured while training includes the start as well.
        if objective == "regression":
            error = np.mean((predicted - HELD_OUT["delay"].to_numpy().astype(np.float32)) ** 2)
            assert estimator.get_eval_results()["eval"]["l2"][-1] == pytest.approx(error, rel=1e-9)


def test_scores_in_a_column_replace_the_average_and_are_not_part_of_the_model() -> None:
    roles = replace(ROLES, base_margin=("margin",))
    result = trained(TABLE, 2, roles, params={"learning_rate": 0.3})
    data = plain_dataset(result, TABLE, "delay")
    data.set_init_score(TABLE["margin"].to_numpy().astype(np.float64))
    alone = lgb.train({"num_leaves": 15, "learning_rate": 0.3, "verbosity": -1}, data, 6)
    rows = encoded(result, TABLE)
    found, expected = (booster.predict(rows) for booster in (result.model.booster(), alone))
    assert found.mean() == pytest.approx(expected.mean(), abs=0.02 * expected.std())
    assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_each_class_needs_its_own_column_of_scores() -> None:
    roles, params = of("multiclass", None)
    columns = ("margin", "normal", "coarse")
    rows = TABLE.set_column(TABLE.schema.get_field_index("normal"), "normal", TABLE["margin"])
    result = trained(
        rows, 2, replace(roles, features=("drift", "rare"), categorical=(), base_margin=columns), params=params
    )
    data = lgb.Dataset(encoded(result, rows).astype(np.float64), rows["grade"].to_numpy())
    data.set_init_score(np.column_stack([rows[name].to_numpy() for name in columns]).astype(np.float64))
    alone = lgb.train({"num_leaves": 15, "verbosity": -1, **params}, data, 6)
    found, expected = (b.predict(encoded(result, rows), raw_score=True) for b in (result.model.booster(), alone))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    with pytest.raises(InvalidArgumentError, match="3 scores"):
        trained(rows, 1, replace(roles, base_margin=("margin",)), params=params)


def test_rows_without_weight_change_nothing() -> None:
    heavy = TABLE.filter(TABLE["some_weight"].to_numpy() > 0)
    roles = replace(ROLES, weight="some_weight")
    params = {"min_data_in_leaf": 0, "min_sum_hessian_in_leaf": 1.0, "max_bin": 63}
    found = trained(TABLE, 2, roles, params=params).model.booster().predict(encoded(trained(TABLE, 1, roles), HELD_OUT))
    alone = trained(heavy, 2, roles, params=params)
    expected = alone.model.booster().predict(encoded(alone, HELD_OUT))
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    assert abs(found.mean() - expected.mean()) < 0.02

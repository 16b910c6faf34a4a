"""A model as scikit-learn estimator predicts what the booster predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from shardfit.run import TrainResult
from shardfit.testing.tables import FEATURES
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from shardfit_xgboost.sklearn_model import to_sklearn
from tests.shardfit_xgboost.training import ROLES, plain_matrix, table, trained

TRAINING, TABLE = table(3_000), table(900, seed=3)


def of(objective: Any, label: str, **changes: Any) -> tuple[TrainResult, Any]:
    params = {"objective": objective, **changes.pop("params", {})}
    if str(objective).startswith("multi:"):
        params["num_class"] = 3
    result = trained(
        TRAINING, roles=replace(ROLES, label=(label,), **changes.pop("roles", {})), params=params, **changes
    )
    return result, to_sklearn(result.model)


def encoded(result: TrainResult) -> Any:
    """Return the rows as the booster takes them: floats, categories as codes."""
    records = TABLE.combine_chunks().to_batches()[0]
    return np.asarray(result.model.spec.encode(records.select(list(FEATURES))))


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        ("reg:squarederror", "delay"),
        ("reg:absoluteerror", "delay"),
        ("count:poisson", "claims"),
        ("reg:logistic", "share"),
    ],
)
def test_a_regressor_predicts_as_the_booster(objective: str, label: str) -> None:
    result, model = of(objective, label)
    assert type(model) is xgb.XGBRegressor
    assert model.objective == objective
    np.testing.assert_array_equal(
        model.predict(encoded(result)), result.model.booster().predict(plain_matrix(result, TABLE))
    )


def test_a_regressor_of_several_outputs_predicts_as_the_booster() -> None:
    result = trained(TRAINING, roles=replace(ROLES, label=("delay", "amount")))
    found = to_sklearn(result.model).predict(encoded(result))
    np.testing.assert_array_equal(found, result.model.booster().predict(plain_matrix(result, TABLE)))


@pytest.mark.parametrize("objective", ["binary:logistic", "binary:logitraw", "binary:hinge"])
def test_a_binary_classifier_predicts_as_the_booster(objective: str) -> None:
    result, model = of(objective, "late")
    assert type(model) is xgb.XGBClassifier
    assert model.classes_.tolist() == [0, 1]
    assert model.n_classes_ == 2
    predictions = result.model.booster().predict(plain_matrix(result, TABLE))
    # Of raw scores too, as XGBoost's own estimator does.
    np.testing.assert_array_equal(model.predict(encoded(result)), (predictions > 0.5).astype(int))
    if objective == "binary:logistic":
        chances = model.predict_proba(encoded(result))
        np.testing.assert_array_equal(chances[:, 1], predictions)
        np.testing.assert_array_equal(chances[:, 0], 1 - predictions)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_a_classifier_of_several_classes_predicts_as_the_booster(objective: str) -> None:
    result, model = of(objective, "grade")
    assert type(model) is xgb.XGBClassifier
    assert model.classes_.tolist() == [0, 1, 2]
    margins = result.model.booster().predict(plain_matrix(result, TABLE), output_margin=True)
    np.testing.assert_array_equal(model.predict(encoded(result)), margins.argmax(axis=1))
    chances = model.predict_proba(encoded(result))
    np.testing.assert_allclose(chances, np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_ranker_predicts_as_the_booster() -> None:
    result, model = of("rank:ndcg", "grade", roles={"group": "query"})
    assert type(model) is xgb.XGBRanker
    expected = result.model.booster().predict(plain_matrix(result, TABLE))
    np.testing.assert_array_equal(model.predict(encoded(result)), expected)


def test_rounds_after_the_best_one_are_not_used() -> None:
    params = {"learning_rate": 1.0, "early_stopping_rounds": 3, "n_estimators": 60, "max_depth": 6}
    result, model = of("reg:squarederror", "delay", params=params, evals={"held": TABLE})
    assert model.best_iteration == result.model.best_iteration
    assert model.best_score == pytest.approx(min(result.metrics["held-rmse"]))
    booster, data = result.model.booster(), plain_matrix(result, TABLE)
    found = model.predict(encoded(result))
    np.testing.assert_array_equal(found, booster.predict(data, iteration_range=(0, model.best_iteration + 1)))
    assert (found != booster.predict(data)).any()


def test_a_data_frame_with_the_same_categories_predicts_the_same() -> None:
    result, model = of("reg:squarederror", "delay")
    frame = TABLE.select(list(FEATURES)).to_pandas()
    for name, known in result.model.spec.categories.items():
        frame[name] = pd.Categorical(frame[name], categories=list(known.values))
    np.testing.assert_array_equal(model.predict(frame), model.predict(encoded(result)))


def test_a_value_that_stands_for_missing_does_so_here_too() -> None:
    roles = {"features": ("marked", "coarse"), "categorical": ()}
    result, model = of("reg:squarederror", "delay", roles=roles, params={"missing": -999.0})
    values = np.column_stack([TABLE[name].to_numpy().astype(np.float32) for name in ("marked", "coarse")])
    assert (values == -999).any()
    expected = result.trainer.predict(result.model, TABLE.combine_chunks().to_batches()[0])
    np.testing.assert_array_equal(model.predict(values), expected.to_numpy())


def test_names_importances_and_rounds_are_those_of_the_booster() -> None:
    result, model = of("reg:squarederror", "delay")
    assert model.feature_names_in_.tolist() == list(FEATURES)
    assert model.n_features_in_ == len(FEATURES)
    assert model.get_num_boosting_rounds() == 6
    gain = result.model.booster().get_score(importance_type="gain")
    expected = np.array([gain.get(name, 0.0) for name in FEATURES], dtype=np.float32)
    np.testing.assert_allclose(model.feature_importances_, expected / expected.sum(), rtol=1e-5)


def test_an_estimator_gives_one_and_it_can_be_saved(tmp_path: Path) -> None:
    estimator = XGBEstimator(5, "binary:logistic", scaling_config=XGBScalingConfig(1, engine="inline"))
    estimator.fit(pa.table({"x": TRAINING["normal"], "late": TRAINING["late"]}), ["x"], "late")
    model = estimator.to_sklearn()
    values = TABLE["normal"].to_numpy()[:, None]
    model.save_model(tmp_path / "model.json")
    again = xgb.XGBClassifier()
    again.load_model(tmp_path / "model.json")
    np.testing.assert_array_equal(again.predict_proba(values), model.predict_proba(values))

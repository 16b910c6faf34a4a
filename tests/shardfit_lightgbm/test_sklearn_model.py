"""A model as scikit-learn estimator predicts what the booster predicts."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from shardfit.run import TrainResult
from shardfit.testing.tables import FEATURES
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.sklearn_model import to_sklearn
from tests.shardfit_lightgbm.training import ROLES, encoded, table, trained

TRAINING, TABLE = table(1_500), table(500, seed=3)
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")


def of(objective: Any, label: str, **changes: Any) -> tuple[TrainResult, Any]:
    params = {"objective": objective, **changes.pop("params", {})}
    roles = replace(ROLES, label=(label,), **changes.pop("roles", {}))
    result = trained(TRAINING, roles=roles, params=params, **changes)
    return result, to_sklearn(result.model)


@pytest.mark.parametrize(
    ("objective", "label"),
    [("regression", "delay"), ("l1", "delay"), ("poisson", "claims"), ("cross_entropy", "share")],
)
def test_a_regressor_predicts_as_the_booster(objective: str, label: str) -> None:
    result, model = of(objective, label)
    assert type(model) is lgb.LGBMRegressor
    rows = encoded(result, TABLE)
    np.testing.assert_array_equal(model.predict(rows), result.model.booster().predict(rows))
    assert model.n_features_in_ == len(FEATURES)
    assert list(model.feature_name_) == list(FEATURES)
    np.testing.assert_array_equal(model.feature_importances_, result.model.booster().feature_importance())


def test_a_binary_classifier_predicts_as_the_booster() -> None:
    result, model = of("binary", "late")
    assert type(model) is lgb.LGBMClassifier
    assert model.classes_.tolist() == [0, 1]
    rows = encoded(result, TABLE)
    chances = result.model.booster().predict(rows)
    np.testing.assert_array_equal(model.predict(rows), (chances > 0.5).astype(int))
    np.testing.assert_array_equal(model.predict_proba(rows)[:, 1], chances)


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_a_classifier_of_several_classes_predicts_as_the_booster(objective: str) -> None:
    result, model = of(objective, "grade", params={"num_class": 3})
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.n_classes_ == 3
    rows = encoded(result, TABLE)
    chances = result.model.booster().predict(rows)
    np.testing.assert_array_equal(model.predict_proba(rows), chances)
    np.testing.assert_array_equal(model.predict(rows), chances.argmax(axis=1))


def test_a_ranker_predicts_as_the_booster() -> None:
    result, model = of("lambdarank", "grade", roles={"group": "query"})
    assert type(model) is lgb.LGBMRanker
    rows = encoded(result, TABLE)
    np.testing.assert_array_equal(model.predict(rows), result.model.booster().predict(rows))


def test_a_function_as_objective_gives_a_regressor() -> None:
    def objective(predictions: Any, data: lgb.Dataset) -> tuple[Any, Any]:
        return predictions - data.get_label(), np.ones_like(predictions)

    result, model = of(objective, "delay")
    rows = encoded(result, TABLE)
    np.testing.assert_array_equal(model.predict(rows), result.model.booster().predict(rows))


def test_rounds_after_the_best_one_are_not_used() -> None:
    params = {"learning_rate": 0.6, "early_stopping_round": 3, "num_iterations": 60}
    result, model = of("regression", "delay", params=params, evals={"held": TABLE})
    assert model.best_iteration_ == result.best_round + 1
    assert model.evals_result_ == {"held": {"l2": list(result.metrics["held-l2"])}}
    rows, booster = encoded(result, TABLE), result.model.booster()
    assert booster.current_iteration() == result.best_round + 4
    np.testing.assert_array_equal(model.predict(rows), booster.predict(rows, num_iteration=result.best_round + 1))
    assert (model.predict(rows) != booster.predict(rows, num_iteration=-1)).any()


def test_an_estimator_gives_one_and_it_can_be_pickled() -> None:
    estimator = LightGBMEstimator(5, "binary", scaling_config=LightGBMScalingConfig(1, 1, engine="inline"))
    estimator.fit(TRAINING, ["normal", "drift"], "late")
    model = estimator.to_sklearn()
    rows = np.column_stack([TABLE["normal"].to_numpy(), TABLE["drift"].to_numpy()])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))

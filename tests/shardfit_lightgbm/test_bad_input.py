"""What cannot be trained on or with is refused, with what was found and what to do, before a worker starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.errors import InfeasibleRequestError, InvalidArgumentError, InvalidValueError, UnknownParameterError
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.config import configure
from shardfit_lightgbm.library import parameter_aliases
from shardfit_lightgbm.parameters import _REFUSED, RUN_PARAMETERS
from tests.shardfit_lightgbm.training import ROLES, table, trained

TABLE = table(600)
REFUSED_NAMES = frozenset({"", "tab\there", "a\nb", "back\\slash"})
CLASSES = replace(ROLES, label=("grade",))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("num_leafs", "num_leaves"),
        ("learning_rat", "learning_rate"),
        ("etaa", "learning_rate"),
        ("lamda_l2", "lambda_l2"),
    ],
)
def test_a_parameter_that_does_not_exist_is_refused_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownParameterError, match=meant) as refused:
        configure({wrong: 1})
    assert repr(wrong) in str(refused.value)


@pytest.mark.parametrize("name", sorted(_REFUSED))
def test_what_shardfit_does_itself_is_refused_under_every_name(name: str) -> None:
    for given in (name, *parameter_aliases()[name]):
        with pytest.raises(InvalidArgumentError, match=f"{given!r}.*cannot be used here: ."):
            configure({given: 1})


def test_every_refused_parameter_and_every_one_that_the_run_takes_is_one_of_lightgbm() -> None:
    known = parameter_aliases().keys()
    assert _REFUSED.keys() <= known
    assert RUN_PARAMETERS - known == {"callbacks", "custom_metric"}


@pytest.mark.parametrize(
    ("params", "alternative"),
    [
        ({"boosting": "rf"}, "bagging_fraction"),
        ({"boosting_type": "random_forest"}, "bagging_fraction"),
        ({"linear_tree": True}, "linear"),
        ({"linear_tree": 1}, "linear"),
        ({"linear_tree": "true"}, "linear"),
        ({"tree_learner": "voting"}, "leave it out"),
        ({"tree_learner": "voting_parallel"}, "leave it out"),
        ({"tree_learner": "feature_parallel"}, "leave it out"),
        ({"interaction_constraints": [[0, 1], [2, 3]]}, "leave features out"),
        ({"objective": "cross_entropy_lambda", "bagging_fraction": 0.5, "bagging_freq": 1}, "cross_entropy"),
        ({"objective": "multiclass"}, "num_class"),
        ({"objective": "multiclass", "num_class": 1}, "num_class"),
        ({"objective": "regression", "num_class": 3}, "num_class"),
        ({"objective": "quantiles"}, "quantile"),
        ({"learning_rate": 0.1, "eta": 0.2}, "another name"),
        ({"num_iterations": 0}, "1 or more"),
        ({"n_estimators": 2.5}, "whole number"),
        ({"bagging_fraction": 0}, "above 0"),
        ({"max_bin": 1}, "2 or more"),
        ({"early_stopping_round": -1}, "0 or more"),
        ({"early_stopping_min_delta": -0.1}, "0 or more"),
        ({"custom_metric": 3}, "function"),
        ({"metric": [len]}, "custom_metric"),
        ({"metric": "l3"}, "l1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_that_cannot_be_used_is_refused_with_what_can(params: dict[str, Any], alternative: str) -> None:
    with pytest.raises(InvalidArgumentError, match=alternative):
        configure(params)


@pytest.mark.parametrize(
    "params",
    [{"num_leaves": 1}, {"learning_rate": -1}, {"lambda_l2": -3.0}, {"feature_fraction": 2.0}, {"max_depth": "deep"}],
    ids=str,
)
def test_what_lightgbm_refuses_is_refused_on_the_driver(params: dict[str, Any]) -> None:
    (name,) = params
    with pytest.raises(InvalidArgumentError, match=name):
        trained(TABLE, 2, params=params)


@pytest.mark.parametrize(
    ("objective", "label", "wrong", "found"),
    [
        ("binary", "late", 2.0, "0 or 1"),
        ("binary", "late", 0.5, "0 or 1"),
        ("multiclass", "grade", 3.0, "0, 1, ... 2"),
        ("multiclassova", "grade", -1.0, "0, 1, ... 2"),
        ("poisson", "claims", -1.0, "0 or more"),
        ("tweedie", "claims", -1.0, "0 or more"),
        ("gamma", "amount", 0.0, "more than 0"),
        ("cross_entropy", "share", 1.5, "between 0 and 1"),
        ("lambdarank", "grade", 31.0, "0 to 30"),
        ("rank_xendcg", "grade", -2.0, "0 to 30"),
    ],
)
def test_labels_outside_the_range_of_the_objective_are_refused(
    objective: str, label: str, wrong: float, found: str
) -> None:
    values = TABLE[label].to_numpy().astype(np.float64)
    values[-1] = wrong
    rows = TABLE.set_column(TABLE.schema.get_field_index(label), label, pa.array(values))
    roles = replace(ROLES, label=(label,), group="query" if "rank" in objective else None)
    params = {"objective": objective} | ({"num_class": 3} if "multi" in objective else {})
    with pytest.raises(InvalidValueError, match=found) as refused:
        trained(rows, 2, roles, params=params)
    assert "'train'" in str(refused.value)
    with pytest.raises(InvalidValueError, match="'held'"):
        trained(TABLE, 1, roles, params=params, evals={"held": rows})


def test_label_gains_say_how_large_labels_may_be_however_they_are_given() -> None:
    roles = replace(CLASSES, group="query")
    for gains in ([0, 1], "0,1"):
        with pytest.raises(InvalidValueError, match="0 to 1"):
            trained(TABLE, 2, roles, params={"objective": "lambdarank", "label_gain": gains})
    assert trained(TABLE, 2, roles, params={"objective": "lambdarank", "label_gain": "0,1,9"}).model.text


@pytest.mark.parametrize(("objective", "label"), [("binary", "late"), ("multiclass", "grade")])
def test_one_class_alone_is_refused_for_training_and_not_for_measuring(objective: str, label: str) -> None:
    one = TABLE.filter(TABLE[label].to_numpy() == 1)
    roles = replace(ROLES, label=(label,))
    params = {"objective": objective} | ({"num_class": 3} if objective == "multiclass" else {})
    with pytest.raises(InvalidValueError, match="one class only"):
        trained(one, 2, roles, params=params)
    assert trained(TABLE, 2, roles, params=params, evals={"one": one}).metrics


def test_a_role_that_is_missing_is_named() -> None:
    for params in ({"objective": "lambdarank"}, {"metric": "ndcg"}):
        with pytest.raises(InvalidArgumentError, match="group_col"):
            trained(TABLE, 1, CLASSES, params=params, evals={"held": TABLE})
    for label in ((), ("delay", "amount")):
        with pytest.raises(InvalidArgumentError, match="label"):
            trained(TABLE, 1, replace(ROLES, label=label))


@pytest.mark.parametrize("name", ["a:b", 'say "x"', "[x]", "a,b", "{x}"])
def test_names_of_features_that_lightgbm_does_not_take_are_refused(name: str) -> None:
    rows = pa.table({name: TABLE["normal"], "y": TABLE["delay"]})
    with pytest.raises(InvalidArgumentError, match="name") as refused:
        trained(rows, 1, replace(ROLES, features=(name,), label=("y",), categorical=()))
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    "name", ["with space", "tab\there", "ünïcode", "日本", "a=b", "x'y", "", "a\nb", "back\\slash", "Tree=0"]
)
def test_other_names_come_back_from_the_model_or_are_refused(name: str) -> None:
    rows = pa.table({name: TABLE["coarse"], "y": TABLE["coarse"]})
    roles = replace(ROLES, features=(name,), label=("y",), categorical=())
    if name in REFUSED_NAMES:
        with pytest.raises(InvalidArgumentError, match="name"):
            trained(rows, 2, roles)
        return
    result = trained(rows, 2, roles)
    booster = result.model.booster()
    assert booster.num_feature() == 1
    assert booster.num_trees() == 6
    np.testing.assert_array_equal(
        result.trainer.predict(result.model, rows.combine_chunks().to_batches()[0]).to_numpy(),
        booster.predict(rows[name].to_numpy()[:, None]),
    )


def test_names_that_lightgbm_cannot_tell_apart_are_refused_before_a_worker_starts() -> None:
    rows = pa.table({"a b": TABLE["normal"], "a_b": TABLE["coarse"], "y": TABLE["delay"]})
    with pytest.raises(InvalidArgumentError, match="a_b"):
        trained(rows, 2, replace(ROLES, features=("a b", "a_b"), label=("y",), categorical=()))


def test_gpus_are_refused_with_the_reason() -> None:
    estimator = LightGBMEstimator(3, scaling_config=LightGBMScalingConfig(1, 1, use_gpu=True, engine="inline"))
    with pytest.raises((InfeasibleRequestError, InvalidArgumentError), match=r"CUDA|GPU"):
        estimator.fit(TABLE, ROLES.features, "delay", categorical_cols=ROLES.categorical)


def test_an_empty_name_of_a_metric_is_that_of_the_objective() -> None:
    assert [metric.name for metric in configure({"metric": ""}).metrics] == ["l2"]
    assert [metric.name for metric in configure({"metric": " l1 , auc"}).metrics] == ["l1", "auc"]
    assert configure({"metric": "None"}).metrics == ()
    sets = [configure({"metric": {"l1", "l2", "rmse", "mape"}}).metrics for _ in range(2)]
    assert [metric.name for metric in sets[0]] == ["l1", "l2", "mape", "rmse"]

"""Mistakes that were made once: each with data that brings it out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError, InvalidValueError, UnknownColumnError
from shardfit_xgboost import XGBEstimator
from tests.shardfit_xgboost.training import model_of, trained

ROWS = 600


def table(rows: int = ROWS, **columns: Any) -> pa.Table:
    """Return two features, a label `y`, classes `grade`, weights and query groups of seven rows."""
    random = np.random.default_rng(7)
    near, far = random.normal(size=rows), random.normal(size=rows)
    return pa.table(
        {
            "near": near,
            "far": far,
            "y": near + random.normal(size=rows) / 3,
            "grade": random.integers(0, 3, rows),
            "weight": random.random(rows).astype(np.float32),
            "query": np.arange(rows) // 7,
            **columns,
        }
    )


def roles(label: str = "y", **others: Any) -> ColumnRoles:
    return ColumnRoles(("near", "far"), (label,), **others)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("group_rows", [1, 5, 100])
def test_query_groups_stay_whole_where_row_groups_cut_them(group_rows: int, workers: int, tmp_path: Path) -> None:
    rows = table()
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=group_rows)
    arguments = {"roles": roles("grade", group="query"), "params": {"objective": "rank:ndcg"}}
    cut = trained(DataConnector.from_parquet(tmp_path), workers, **arguments)
    whole = trained(rows, **arguments)
    assert model_of(cut.model.booster()) == model_of(whole.model.booster())
    assert whole.model.booster().get_score()


def raw_features(rows: pa.Table) -> xgb.DMatrix:
    columns = [rows[name].to_numpy() for name in ("near", "far")]
    return xgb.DMatrix(np.column_stack(columns).astype(np.float32), feature_names=["near", "far"])


@pytest.mark.parametrize("changes", [{"weight": "weight"}, {"subsample": 0.5}], ids=str)
def test_groups_do_not_keep_other_objectives_from_weights_and_samples(changes: dict[str, Any]) -> None:
    rows, weight = table(), changes.get("weight")
    params = {"subsample": changes.get("subsample", 1.0)}
    grouped = trained(rows, 2, roles(group="query", weight=weight), params=params, evals={"eval": rows})
    plain = trained(rows, 1, roles(weight=weight), params=params, evals={"eval": rows})
    assert model_of(grouped.model.booster()) == model_of(plain.model.booster())
    assert grouped.metrics == plain.metrics


def own_softmax(margins: Any, data: xgb.DMatrix) -> tuple[Any, Any]:
    shares = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
    return shares - np.eye(3)[data.get_label().astype(int)], 2 * shares * (1 - shares)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax", own_softmax])
@pytest.mark.parametrize("rows", [1, 2])
def test_several_classes_are_measured_on_fewer_rows_than_workers(rows: int, objective: Any) -> None:
    params = {"objective": objective, "num_class": 3, "eval_metric": ["merror", "mlogloss", "auc"]}
    everything = table()
    arguments = {"roles": roles("grade"), "params": params, "evals": {"eval": everything.slice(3, rows)}}
    alone, together = trained(everything, 1, **arguments), trained(everything, 4, **arguments)
    assert model_of(together.model.booster()) == model_of(alone.model.booster())
    assert together.metrics["eval-mlogloss"] == alone.metrics["eval-mlogloss"]
    assert np.isfinite(alone.metrics["eval-mlogloss"]).all()


def test_an_own_metric_of_an_own_objective_sees_raw_predictions() -> None:
    def largest(predictions: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        return predictions.max(axis=1), np.ones(len(labels))

    rows = table()
    params = {"objective": own_softmax, "num_class": 3, "custom_metric": largest}
    result = trained(rows, 1, roles("grade"), params=params, evals={"eval": rows})
    raw = result.model.booster().predict(raw_features(rows), output_margin=True)
    assert result.metrics["eval-largest"][-1] == pytest.approx(raw.max(axis=1).mean(), rel=1e-6)


def test_an_own_objective_of_several_classes_is_measured_without_naming_a_metric() -> None:
    rows = table()
    params = {"objective": own_softmax, "num_class": 3}
    assert list(trained(rows, 1, roles("grade"), params=params, evals={"eval": rows}).metrics) == ["eval-merror"]


@pytest.mark.parametrize("step", [0, 0.3])
def test_counts_are_learnt_with_the_largest_step_that_was_asked_for(step: float) -> None:
    rows = table(y=np.random.default_rng(1).poisson(2, ROWS))
    params = {"objective": "count:poisson", "max_delta_step": step, "max_bin": 1024}
    found = trained(rows, 1, roles(), params=params).model.booster()
    data = raw_features(rows)
    data.set_label(rows["y"].to_numpy())
    expected = xgb.train({**params, "max_depth": 4}, data, 6)
    np.testing.assert_allclose(found.predict(data), expected.predict(data), rtol=1e-5)


def test_the_seed_among_the_parameters_decides_on_sampled_rows() -> None:
    def dump(argument: int, parameter: int | None) -> list[str]:
        params = {"subsample": 0.5, "seed": parameter}
        return list(trained(table(), 1, roles(), seed=argument, params=params).model.booster().get_dump())

    assert dump(0, 1) != dump(0, 2)
    assert dump(5, 2) == dump(0, 2) == dump(2, None)


def test_a_parameter_that_is_none_counts_as_not_given() -> None:
    names = ["base_score", "max_bin", "missing", "num_class", "subsample", "nthread", "eval_metric", "objective"]
    given = trained(table(), 2, roles(), params={**dict.fromkeys(names), "max_depth": None}, evals={"eval": table(50)})
    without = trained(table(), 1, roles(), params={"max_depth": None}, evals={"eval": table(50)})
    assert model_of(given.model.booster()) == model_of(without.model.booster())
    assert given.metrics == without.metrics


def test_the_levels_of_a_quantile_objective_may_be_an_array() -> None:
    objective = {"objective": "reg:quantileerror"}
    array = trained(table(), 1, roles(), params={**objective, "quantile_alpha": np.array([0.2, 0.8])})
    listed = trained(table(), 1, roles(), params={**objective, "quantile_alpha": [0.2, 0.8]})
    assert model_of(array.model.booster()) == model_of(listed.model.booster())


@pytest.mark.parametrize("name", ["a[0]", "a]", "a<b"])
def test_a_name_that_xgboost_refuses_is_told_before_the_start(name: str) -> None:
    rows = table().rename_columns([name, "far", "y", "grade", "weight", "query"])
    with pytest.raises(InvalidArgumentError, match=re.escape(repr(name))):
        trained(rows, 1, ColumnRoles((name,), ("y",)))


def test_labels_that_are_all_zero_are_refused_where_gradients_would_be_no_numbers() -> None:
    with pytest.raises(InvalidValueError, match="not all of them 0"):
        trained(table(y=np.zeros(ROWS)), 1, roles(), params={"objective": "reg:tweedie"})


@pytest.mark.parametrize("save_best", [False, True])
def test_the_best_round_that_xgboosts_own_callback_finds_is_the_one_predicted_with(save_best: bool) -> None:
    rows = table()
    noise = table(y=np.random.default_rng(9).normal(size=ROWS))
    stopping = xgb.callback.EarlyStopping(rounds=3, save_best=save_best)
    estimator = XGBEstimator(30, params={"learning_rate": 0.9}, callbacks=[stopping])
    booster = estimator.fit(rows, ["near", "far"], "y", {"eval": noise})
    assert estimator.result.best_round == booster.best_iteration < 3
    expected = booster.predict(raw_features(rows), iteration_range=(0, booster.best_iteration + 1))
    np.testing.assert_array_equal(estimator.predict(rows).to_numpy(), expected)


def test_the_group_column_may_be_a_feature_too() -> None:
    rows = table()
    copied = rows.append_column("number", rows["query"])
    params = {"objective": "rank:ndcg"}
    arguments = {"params": params, "evals": {"eval": copied}}
    both = trained(copied, 2, ColumnRoles(("near", "query"), ("grade",), group="query"), **arguments)
    copy = trained(copied, 2, ColumnRoles(("near", "number"), ("grade",), group="query"), **arguments)
    assert both.metrics == copy.metrics
    trees, others = both.model.booster().get_dump(), copy.model.booster().get_dump()
    assert [tree.replace("query", "number") for tree in trees] == others


def test_a_model_with_base_margins_predicts_what_it_was_measured_on() -> None:
    random = np.random.default_rng(2)
    rows = table(first=random.normal(size=ROWS) * 3, second=random.normal(size=ROWS), third=random.normal(size=ROWS))
    margins = ["first", "second", "third"]
    params = {"objective": "multi:softprob", "num_class": 3, "eval_metric": "mlogloss"}
    estimator = XGBEstimator(5, params=params)
    estimator.fit(rows, ["near", "far", "first"], "grade", rows, base_margin_col=margins)
    shares = np.array(estimator.predict(rows.select(["third", "second", "first", "far", "near"])).to_pylist())
    loss = -np.log(shares[np.arange(ROWS), rows["grade"].to_numpy()]).mean()
    assert loss == pytest.approx(estimator.get_eval_results()["eval"]["mlogloss"][-1], rel=1e-6)
    with pytest.raises(UnknownColumnError, match="'second'"):
        estimator.predict(rows.drop_columns("second"))
    with pytest.raises(InvalidValueError, match="'second'"):
        estimator.predict(rows.set_column(rows.column_names.index("second"), "second", pa.nulls(ROWS, pa.float64())))
    with pytest.raises(InvalidArgumentError, match="base_margin_col"):
        estimator.fit(rows, ["near", "far", "first"], "grade", resume_from=estimator.result)


def test_predicting_from_a_value_beyond_float32_names_the_column() -> None:
    estimator = XGBEstimator(2)
    estimator.fit(table(), ["near", "far"], "y")
    with pytest.raises(InvalidValueError, match="'far'"):
        estimator.predict(table(far=np.full(ROWS, 1e300)))


@pytest.mark.parametrize("names", [("zoo", "abc"), ("abc", "zoo")])
def test_the_evaluation_set_that_is_given_last_decides_on_stopping(names: tuple[str, str]) -> None:
    noise = table(y=np.random.default_rng(9).normal(size=ROWS))
    params = {"learning_rate": 0.9, "n_estimators": 30, "early_stopping_rounds": 3}
    evals = dict(zip(names, (table(), noise), strict=True))
    result = trained(table(), 2, roles(), params=params, evals=evals)
    values = result.metrics[f"{names[1]}-rmse"]
    assert result.best_round == int(np.argmin(values)) < 5
    assert len(values) == result.best_round + 4


@pytest.mark.parametrize(
    ("changes", "found"),
    [({}, "no evaluation set"), ({"evals": {"eval": table(50)}, "params": {"eval_metric": []}}, "no metric")],
)
def test_stopping_early_by_nothing_is_refused(changes: dict[str, Any], found: str) -> None:
    params = {"early_stopping_rounds": 3, **changes.pop("params", {})}
    with pytest.raises(InvalidArgumentError, match=found):
        trained(table(), 1, roles(), params=params, **changes)


def test_a_metric_that_is_named_twice_is_measured_once() -> None:
    params = {"objective": "binary:logistic", "eval_metric": ["error", "logloss", "error@0.5"]}
    rows = table(y=np.arange(ROWS) % 2)
    result = trained(rows, 1, roles(), params=params, evals={"eval": rows})
    assert {name: len(values) for name, values in result.model.history["eval"].items()} == {"error": 6, "logloss": 6}


def rmse(predictions: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    return predictions, labels


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"eval_metric": rmse}, "pass a function as custom_metric"),
        ({"eval_metric": ["mae", rmse]}, "pass a function as custom_metric"),
        ({"eval_metric": "rmse", "custom_metric": rmse}, "a metric called 'rmse', too"),
    ],
)
def test_a_metric_that_would_be_passed_over_or_mixed_up_is_refused(params: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidArgumentError, match=found):
        trained(table(), 1, roles(), params=params, evals={"eval": table(50)})


def test_verbose_eval_prints_the_last_round_too(capsys: pytest.CaptureFixture[str]) -> None:
    XGBEstimator(6).fit(table(), ["near", "far"], "y", table(50), verbose_eval=4)
    assert [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["[0]", "[4]", "[5]"]
    XGBEstimator(5).fit(table(), ["near", "far"], "y", table(50), verbose_eval=4)
    assert [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["[0]", "[4]"]

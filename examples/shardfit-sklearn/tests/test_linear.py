"""The trainer `linear`: scikit-learn's coefficients, and the same bits at any number of workers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import linear_model
from typer.testing import CliRunner

from shardfit import ColumnRoles, DataConnector, Job, train
from shardfit.cli import app
from shardfit.collectives.contract import SoleWorker
from shardfit.errors import InvalidArgumentError, InvalidValueError, ShardfitError, UnknownParameterError
from shardfit.testing.worker_threads import train_on_threads
from shardfit_sklearn import LinearModel
from shardfit_sklearn.sums import RowSums, solve

FEATURES = ("area", "rooms", "year")
ROWS = 1001

ESTIMATORS: dict[str, tuple[dict[str, Any], Any]] = {
    "linear": ({"estimator": "linear"}, linear_model.LinearRegression()),
    "linear without intercept": (
        {"estimator": "linear", "fit_intercept": False},
        linear_model.LinearRegression(fit_intercept=False),
    ),
    "ridge": ({"estimator": "ridge", "alpha": 30.0}, linear_model.Ridge(alpha=30.0, solver="cholesky")),
    "logistic": (
        {"estimator": "logistic", "C": 0.3},
        linear_model.LogisticRegression(C=0.3, tol=1e-10, solver="newton-cholesky"),
    ),
}


def table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Rows in order of time, on very different scales."""
    random = np.random.default_rng(seed)
    area = np.sort(random.lognormal(4, 0.4, rows))
    rooms = random.integers(1, 7, rows)
    year = 2000 + random.random(rows) * 20
    price = 3.5 * area - 20.0 * rooms + 4.0 * (year - 2000) + random.normal(0, 30, rows)
    return pa.table(
        {
            "area": area,
            "rooms": rooms,
            "year": year.astype(np.float32),
            "price": price,
            "sold": (price > np.median(price)).astype(np.int8),
            "weight": random.random(rows) + 0.5,
        }
    )


def job(params: dict[str, Any], data: pa.Table | None = None, weight: str | None = None) -> Job:
    label = "sold" if params.get("estimator") == "logistic" else "price"
    return Job(
        trainer="linear",
        data=DataConnector.from_arrow(table() if data is None else data),
        evals={"later": DataConnector.from_arrow(table(50, seed=1))},
        columns=ColumnRoles(FEATURES, (label,), weight),
        params=params,
        workers=1,
        engine="inline",
    )


def matrix(data: pa.Table) -> np.ndarray[Any, Any]:
    return np.column_stack([data[name].to_numpy().astype(np.float64) for name in FEATURES])


@pytest.mark.parametrize("weight", [None, "weight"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_coefficients_are_those_of_scikit_learn(name: str, weight: str | None) -> None:
    params, estimator = ESTIMATORS[name]
    wanted = job(params, weight=weight)
    found: LinearModel = train(wanted).model
    rows = table()
    weights = None if weight is None else rows[weight].to_numpy()
    estimator.fit(matrix(rows), rows[wanted.columns.label[0]].to_numpy(), sample_weight=weights)
    fitted = found.to_sklearn()
    assert type(fitted) is type(estimator)
    assert found.converged
    np.testing.assert_allclose(fitted.coef_, estimator.coef_, rtol=1e-6)
    np.testing.assert_allclose(fitted.intercept_, estimator.intercept_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight", [None, "weight"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_models_and_metrics_are_the_same_bits_at_any_number_of_workers(name: str, weight: str | None) -> None:
    params, _ = ESTIMATORS[name]
    alone = train(job(params, weight=weight))
    for workers in (2, 3, 5):
        together = train_on_threads(job(params, weight=weight), workers)
        assert together.plan.layout.workers == workers
        assert together.model.files() == alone.model.files()
        assert together.metrics == alone.metrics


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_model_predicts_what_its_scikit_learn_estimator_predicts(name: str) -> None:
    params, _ = ESTIMATORS[name]
    result = train(job(params))
    rows = table(97, seed=2)
    fitted = result.model.to_sklearn()
    named = rows.select(FEATURES).to_pandas()
    expected = fitted.predict_proba(named)[:, 1] if name == "logistic" else fitted.predict(named)
    (batch,) = rows.to_batches()
    np.testing.assert_allclose(result.trainer.predict(result.model, batch).to_numpy(), expected, rtol=1e-9)


def test_metrics_are_measured_on_every_dataset() -> None:
    result = train(job({"estimator": "ridge"}))
    rows = table(50, seed=1)
    errors = result.model.to_sklearn().predict(rows.select(FEATURES).to_pandas()) - rows["price"].to_numpy()
    assert result.metrics["later-rmse"] == pytest.approx((float(np.sqrt(np.mean(errors**2))),))
    losses = train(job({"estimator": "logistic"})).metrics["train-logloss"]
    assert losses[-1] < losses[0] <= np.log(2)


def test_a_job_file_trains_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    pq.write_table(table(), "houses.parquet", row_group_size=100)
    Path("job.toml").write_text(
        'trainer = "linear"\ndata = "houses.parquet"\nengine = "inline"\nworkers = 1\n'
        '[columns]\nfeatures = ["area", "rooms", "year"]\nlabel = "price"\n'
        '[params]\nestimator = "linear"\n'
    )
    done = CliRunner().invoke(app, ["train", "job.toml"])
    assert done.exit_code == 0, done.output
    (stored,) = tmp_path.glob("stages/**/model.json")
    assert json.loads(stored.read_text())["coefficients"] == list(
        train(job({"estimator": "linear"})).model.coefficients
    )


BAD_VALUES: dict[str, tuple[str, list[Any], str]] = {
    "missing": ("area", [1.0, None, 2.0], "'area': found None in row 1"),
    "infinite": ("area", [1.0, 2.0, float("inf")], "'area': found inf in row 2"),
    "no class": ("sold", [0.0, 1.0, 2.0], "'sold': found 2.0 in row 2"),
    "negative": ("weight", [1.0, 1.0, -1.0], "'weight': found -1.0 in row 2"),
    "no weight": ("weight", [0.0, 0.0, 0.0], "found 0"),
}


@pytest.mark.parametrize("what", BAD_VALUES)
def test_values_that_no_linear_model_takes_are_named_with_their_row(what: str) -> None:
    column, values, said = BAD_VALUES[what]
    rows = table(3).set_column(table(3).schema.get_field_index(column), column, pa.array(values))
    with pytest.raises(InvalidValueError) as raised:
        train(job({"estimator": "logistic"}, rows, "weight"))
    assert said in str(raised.value)


def test_features_that_say_the_same_are_named_and_a_penalty_helps() -> None:
    rows = table().set_column(1, "rooms", pa.array(matrix(table())[:, 0] * 2))
    with pytest.raises(InvalidValueError, match="'rooms' is constant, or a combination"):
        train(job({"estimator": "linear"}, rows))
    assert np.isfinite(train(job({"estimator": "ridge"}, rows)).model.coefficients).all()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"estimator": "lasso"}, "linear, ridge, logistic"),
        ({"alpha": -1}, "'alpha': found -1"),
        ({"C": 0}, "'C': found 0"),
        ({"tol": float("nan")}, "'tol': found nan"),
        ({"max_iter": 0}, "'max_iter': found 0"),
        ({"max_iter": True}, "'max_iter': found True"),
        ({"fit_intercept": 1}, "'fit_intercept': found 1"),
    ],
)
def test_parameters_that_can_not_be_used_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        train(job(params))
    assert said in str(raised.value)


def test_a_misspelt_parameter_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownParameterError, match="'alpha'"):
        train(job({"alhpa": 1.0}))


@pytest.mark.parametrize(
    "roles",
    [
        ColumnRoles(FEATURES),
        ColumnRoles(FEATURES, ("price", "sold")),
        ColumnRoles(FEATURES, ("price",), group="rooms"),
        ColumnRoles(FEATURES, ("price",), categorical=("rooms",)),
    ],
)
def test_roles_that_linear_models_do_not_know_are_refused(roles: ColumnRoles) -> None:
    with pytest.raises(InvalidArgumentError, match="choosing columns"):
        train(job({}).model_copy(update={"columns": roles}))


def test_steps_that_would_make_the_loss_larger_are_halved() -> None:
    """From a start far off, full Newton steps of logistic regression diverge."""
    random = np.random.default_rng(3)
    area = random.standard_cauchy(200) * 50
    rows = table(200).set_column(0, "area", pa.array(area)).set_column(4, "sold", pa.array((area > 3).astype(np.int8)))
    found = train(job({"estimator": "logistic", "C": 1e6}, rows))
    losses = found.metrics["train-logloss"]
    assert found.model.converged
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(losses))


def test_too_few_steps_are_told() -> None:
    found = train(job({"estimator": "logistic", "max_iter": 2})).model
    assert (found.iterations, found.converged) == (2, False)


def test_a_model_survives_its_file_and_a_torn_file_is_refused() -> None:
    result = train(job({}))
    assert result.trainer.load(result.model.files()) == result.model
    with pytest.raises(ShardfitError, match="loading a linear model"):
        result.trainer.load({"model.json": b"{}"})


def test_equations_are_solved_and_sums_keep_what_floats_would_lose() -> None:
    random = np.random.default_rng(0).normal(size=(6, 6))
    left, right = random @ random.T, np.arange(6.0)
    np.testing.assert_allclose(solve(left, right, "abcdef"), np.linalg.solve(left, right))
    sums = RowSums(1)
    for value in (1e300, 1.0, -1e300):
        sums.add([np.array([value])])
    assert sums.over_all(SoleWorker()).tolist() == [1.0]

"""Metrics against XGBoost's own, in one process: predictions go in as margins of a booster without trees."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.metrics import EarlyStopping, Reducer, metric_named

Array = npt.NDArray[Any]
ROWS = 3000
random = np.random.default_rng(17)
PROBABILITIES = random.random(ROWS).astype(np.float32)
COARSE = np.round(PROBABILITIES, 2)
BINARY = (random.random(ROWS) < PROBABILITIES).astype(np.float32)
FRACTIONS = random.random(ROWS).astype(np.float32)
MEANS = (PROBABILITIES * 3 + 0.1).astype(np.float32)
COUNTS = random.poisson(MEANS).astype(np.float32)
POSITIVE = (random.gamma(2, 1, ROWS) + 0.1).astype(np.float32)
WEIGHTS = random.random(ROWS).astype(np.float32)
WEIGHTS[::7] = 0
RUN_LENGTHS = np.append(random.integers(1, 90, 60), [])
RUN_LENGTHS = np.append(RUN_LENGTHS, ROWS - RUN_LENGTHS.sum()).astype(np.int64)
GROUPS = np.append(0, np.cumsum(RUN_LENGTHS)).astype(np.int64)
GROUP_WEIGHTS = random.random(len(RUN_LENGTHS)).astype(np.float32)
RELEVANCE = random.integers(0, 5, ROWS).astype(np.float32)
RELEVANCE[GROUPS[:-1]] = 2
RELEVANT = (RELEVANCE > 1).astype(np.float32)


def of_xgboost(metric: str, predictions: Array, labels: Array, weights: Array | None, **params: Any) -> float:
    run_lengths = params.pop("run_lengths", None)
    data = xgboost.DMatrix(np.zeros((len(labels), 1)), label=labels, base_margin=predictions)
    if run_lengths is not None:
        data.set_group(run_lengths)
    if weights is not None:
        data.set_weight(weights)
    params = {"base_score": 0.0, "disable_default_eval_metric": 1, "eval_metric": metric, "verbosity": 0, **params}
    shown = xgboost.Booster(params, cache=[data]).eval(data)
    return float(re.split(r"[:\s]", shown)[-1])


def of_shardfit(metric: str, predictions: Array, labels: Array, weights: Array | None, **options: Any) -> float:
    groups = options.pop("groups", None)
    exact = metric_named(metric, **options)
    return exact.evaluate(predictions, labels, weights, groups, reducer=Reducer())


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("name", "predictions", "labels"),
    [
        ("logloss", PROBABILITIES, BINARY),
        ("logloss", PROBABILITIES, FRACTIONS),
        ("error", PROBABILITIES, BINARY),
        ("error@0.7", COARSE, BINARY),
        ("auc", PROBABILITIES, BINARY),
        ("auc", COARSE, BINARY),
        ("auc", COARSE, FRACTIONS),
        ("aucpr", PROBABILITIES, BINARY),
        ("aucpr", COARSE, BINARY),
        ("aucpr", COARSE, FRACTIONS),
        ("rmse", MEANS, POSITIVE),
        ("rmsle", MEANS, POSITIVE),
        ("mae", MEANS, POSITIVE),
        ("mape", MEANS, POSITIVE),
        ("mphe", MEANS, POSITIVE),
        ("poisson-nloglik", MEANS, COUNTS),
        ("tweedie-nloglik@1.5", MEANS, COUNTS),
        ("tweedie-nloglik@1.2", MEANS, COUNTS),
        ("gamma-nloglik", MEANS, POSITIVE),
        ("gamma-deviance", MEANS, POSITIVE),
    ],
)
def test_row_metrics_match(name: str, predictions: Array, labels: Array, weights: Array | None) -> None:
    expected = of_xgboost(name, predictions, labels, weights)
    assert of_shardfit(name, predictions, labels, weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("slope", [0.3, 2.5])
def test_the_pseudo_huber_error_matches_at_other_slopes(slope: float) -> None:
    expected = of_xgboost("mphe", MEANS, POSITIVE, WEIGHTS, huber_slope=slope)
    assert of_shardfit("mphe", MEANS, POSITIVE, WEIGHTS, huber_slope=slope) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("quantiles", [(0.3,), (0.1, 0.5, 0.9)])
def test_quantile_losses_match(quantiles: tuple[float, ...]) -> None:
    predictions = np.stack([MEANS * (1 + level) for level in quantiles], axis=1)
    expected = of_xgboost(
        "quantile", predictions, POSITIVE, WEIGHTS, quantile_alpha=list(quantiles), objective="reg:quantileerror"
    )
    found = of_shardfit("quantile", predictions, POSITIVE, WEIGHTS, quantile_alpha=quantiles)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", ["merror", "mlogloss", "auc", "aucpr"])
def test_class_metrics_match(name: str, weights: Array | None) -> None:
    labels = random.integers(0, 4, ROWS).astype(np.float32)
    margins = (random.standard_normal((ROWS, 4)) + np.eye(4)[labels.astype(int)]).astype(np.float32)
    data = xgboost.DMatrix(np.zeros((ROWS, 1)), label=labels, base_margin=margins)
    params = {"objective": "multi:softprob", "num_class": 4, "base_score": 0.0}
    probabilities = xgboost.Booster(params, cache=[data]).predict(data)
    expected = of_xgboost(name, margins, labels, weights, **params)
    assert of_shardfit(name, probabilities, labels, weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", ["rmse", "mae", "logloss", "error", "mphe"])
def test_metrics_of_several_outputs_match(name: str, weights: Array | None) -> None:
    predictions = random.random((ROWS, 3)).astype(np.float32)
    labels = random.integers(0, 2, (ROWS, 3)).astype(np.float32)
    expected = of_xgboost(name, predictions, labels, weights, num_target=3)
    assert of_shardfit(name, predictions, labels, weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, GROUP_WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        *((name, RELEVANCE) for name in ("ndcg", "ndcg@1", "ndcg@5", "ndcg@5-", "ndcg@60", "auc")),
        *((name, RELEVANT) for name in ("map", "map@3", "map@60", "map-", "pre", "pre@7", "pre@60", "auc", "aucpr")),
    ],
)
@pytest.mark.parametrize("scores", [PROBABILITIES, COARSE], ids=["distinct", "tied"])
def test_ranking_metrics_match(name: str, labels: Array, scores: Array, weights: Array | None) -> None:
    expected = of_xgboost(name, scores, labels, weights, run_lengths=RUN_LENGTHS)
    assert of_shardfit(name, scores, labels, weights, groups=GROUPS) == pytest.approx(expected, rel=1e-6)


def test_ndcg_with_linear_gain_matches() -> None:
    expected = of_xgboost("ndcg@7", COARSE, RELEVANCE, None, run_lengths=RUN_LENGTHS, ndcg_exp_gain=False)
    found = of_shardfit("ndcg@7", COARSE, RELEVANCE, None, groups=GROUPS, ndcg_exp_gain=False)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["ndcg@3", "ndcg@3-", "map@3", "map@3-", "pre@3"])
def test_groups_without_relevant_rows_match(name: str) -> None:
    labels = RELEVANT.copy()
    labels[GROUPS[3] : GROUPS[9]] = 0
    expected = of_xgboost(name, COARSE, labels, None, run_lengths=RUN_LENGTHS)
    assert of_shardfit(name, COARSE, labels, None, groups=GROUPS) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "name", ["rmse", "error@0.7", "error@0.5", "tweedie-nloglik@1.50", "ndcg@10-", "ndcg-", "map", "pre@2", "auc"]
)
def test_names_are_those_that_xgboost_reports(name: str) -> None:
    data = xgboost.DMatrix(np.zeros((4, 1)), label=[0, 1, 0, 1])
    params = {"disable_default_eval_metric": 1, "eval_metric": name, "base_score": 0.5}
    shown = xgboost.Booster(params, cache=[data]).eval(data)
    assert metric_named(name).name == shown.split("eval-")[1].rsplit(":", 1)[0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-5, 5).map(lambda score: round(score, 1)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
)
def test_early_stopping_decides_as_xgboost_does(
    scores: list[float], rounds: int, maximize: bool, min_delta: float
) -> None:
    data = xgboost.DMatrix(np.zeros((2, 1)), label=[0, 1])
    left = iter(scores)
    callback = xgboost.callback.EarlyStopping(rounds=rounds, maximize=maximize, min_delta=min_delta)
    booster = xgboost.train(
        {"nthread": 1, "disable_default_eval_metric": 1, "base_score": 0.5},
        data,
        len(scores),
        evals=[(data, "eval")],
        custom_metric=lambda predictions, matrix: ("mine", next(left)),
        callbacks=[callback],
        verbose_eval=False,
    )
    state = EarlyStopping(rounds, maximize, min_delta)
    for index, score in enumerate(scores):
        state = state.update(index, score)
        if state.stop:
            break
    assert (state.best_round, state.best_score) == (booster.best_iteration, booster.best_score)
    assert booster.num_boosted_rounds() == index + 1

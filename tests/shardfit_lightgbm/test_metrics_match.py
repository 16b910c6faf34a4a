"""Metrics against LightGBM's own, in one process: scores go in as initial scores of a booster without trees."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.errors import InvalidArgumentError, InvalidValueError, UnknownParameterError
from shardfit.metrics import Metric, Reducer
from shardfit.metrics.area import SLICE_ROWS
from shardfit.testing.lockstep import run_in_lockstep
from shardfit_lightgbm.metric_areas import Auc, AveragePrecision
from shardfit_lightgbm.metrics import default_metric, metrics_named

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the parameters from Reference Dataset:UserWarning")

Array = npt.NDArray[Any]
Params = Mapping[str, Any]

ROWS = 500
random = np.random.default_rng(17)
SCORES = random.standard_normal(ROWS)
COARSE = np.round(SCORES, 1)
NEARLY_TIED = COARSE + random.integers(0, 3, ROWS) * 1e-13
BINARY = (random.random(ROWS) < 1 / (1 + np.exp(-SCORES))).astype(np.float32)
SHARES = random.random(ROWS).astype(np.float32)
SHARES[:20] = np.repeat([0, 1], 10)
COUNTS = random.poisson(np.exp(SCORES)).astype(np.float32)
POSITIVE = (random.gamma(2, 1, ROWS) + 0.1).astype(np.float32)
WEIGHTS = (random.random(ROWS) + 0.1).astype(np.float32)
SOME_ZERO = WEIGHTS * (np.arange(ROWS) % 7 > 0)
CLASSES = random.integers(0, 4, ROWS).astype(np.float32)
CLASS_SCORES = random.standard_normal((ROWS, 4)) + np.eye(4)[CLASSES.astype(int)]
GROUP_ROWS = np.append(random.integers(1, 30, 30), [])
GROUP_ROWS = np.append(GROUP_ROWS, ROWS - GROUP_ROWS.sum()).astype(np.int64)
GROUPS = np.append(0, np.cumsum(GROUP_ROWS)).astype(np.int64)
RELEVANCE = random.integers(0, 5, ROWS).astype(np.float32)
RELEVANCE[GROUPS[3] : GROUPS[9]] = 0


class Evaluated:
    """What LightGBM evaluates for a metric and hands to a metric function, and shardfit's values for the latter."""

    def __init__(self, metric: str, params: Params, scores: Array, labels: Array, weights: Array | None = None) -> None:
        self.params, self.labels, self.weights = params, labels, weights
        objective = str(params.get("objective"))
        ranks = "dcg" in objective or objective == "lambdarank" or metric in {"map", "ndcg"}
        self.groups = GROUPS if ranks else None
        sizes = GROUP_ROWS if ranks else None
        defaults = {"verbosity": -1, "num_threads": 1, "num_leaves": 2, "metric": metric, "boost_from_average": False}
        train = lgb.Dataset(np.zeros((ROWS, 1)), label=labels, group=sizes, params={"verbosity": -1})
        valid = lgb.Dataset(np.zeros((ROWS, 1)), labels, train, weights, sizes, scores.ravel(order="F"))
        booster = lgb.Booster({**defaults, **params}, train)
        booster.add_valid(valid, "valid")
        found = booster.eval_valid(self._keep)
        self.expected = {name: value for _, name, value, _ in found if name != "kept"}
        self.maximize = {name: larger for _, name, _, larger in found if name != "kept"}
        self.metrics = metrics_named(metric, params)

    def _keep(self, predictions: Array, data: lgb.Dataset) -> tuple[str, float, bool]:
        self.predictions = predictions.copy()
        return "kept", 0.0, False

    def check(self) -> None:
        assert [metric.name for metric in self.metrics] == list(self.expected)
        maximized = {metric.name: metric.maximize for metric in self.metrics if metric.name != "r2"}
        assert maximized == {name: larger for name, larger in self.maximize.items() if name != "r2"}
        (alone,) = on_workers(self.metrics, self, [])
        assert alone == pytest.approx(list(self.expected.values()), rel=1e-6, nan_ok=True)
        for cuts in ([ROWS // 3], [100, 100]):
            assert {bits(values) for values in on_workers(self.metrics, self, cuts)} == {bits(alone)}


def on_workers(metrics: Sequence[Metric], of: Evaluated, cuts: list[int]) -> list[list[float]]:
    """The values on each worker; rows are dealt at `cuts`, or at the next group."""
    bounds = [0, *cuts, len(of.labels)]
    if of.groups is not None:
        bounds = [int(of.groups[np.searchsorted(of.groups, bound)]) for bound in bounds]
    shards = [slice(start, stop) for start, stop in pairwise(bounds)]

    def evaluate(reducer: Reducer) -> list[float]:
        rows = shards[reducer.rank]
        weights = None if of.weights is None else of.weights[rows]
        groups = of.groups
        if groups is not None:
            groups = groups[(groups >= rows.start) & (groups <= rows.stop)] - rows.start
        shard = of.predictions[rows], of.labels[rows], weights, groups
        return [metric.evaluate(*shard, reducer=reducer) for metric in metrics]

    return run_in_lockstep(len(shards), evaluate)


def bits(values: list[float]) -> bytes:
    return np.where(np.isnan(values), np.nan, values).tobytes()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("metric", "params", "labels"),
    [
        *((name, {"objective": "regression"}, SHARES) for name in ("l1", "l2", "rmse", "r2", "huber", "fair")),
        *((name, {"objective": "regression"}, COUNTS) for name in ("l2", "mape", "r2", "quantile", "poisson")),
        ("l2", {"objective": "regression", "reg_sqrt": True}, COUNTS),
        ("quantile", {"objective": "quantile", "alpha": 0.2}, COUNTS),
        ("huber", {"objective": "huber", "alpha": 0.3}, COUNTS),
        ("fair", {"objective": "fair", "fair_c": 0.2}, COUNTS),
        ("mape", {"objective": "mape"}, POSITIVE),
        ("poisson", {"objective": "poisson"}, COUNTS),
        ("gamma", {"objective": "gamma"}, POSITIVE),
        ("gamma", {"objective": "regression"}, POSITIVE),
        ("gamma_deviance", {"objective": "gamma"}, POSITIVE),
        ("gamma_deviance", {"objective": "tweedie"}, POSITIVE),
        ("tweedie", {"objective": "tweedie"}, COUNTS),
        ("tweedie", {"objective": "tweedie", "tweedie_variance_power": 1.1}, COUNTS),
        ("tweedie", {"objective": "regression", "tweedie_variance_power": 1}, COUNTS),
        *((name, {"objective": "binary"}, BINARY) for name in ("binary_logloss", "binary_error", "l2", "r2")),
        ("binary_logloss", {"objective": "regression"}, COUNTS),
        ("binary_error", {"objective": "regression"}, COUNTS - 1),
        *((name, {"objective": "cross_entropy"}, SHARES) for name in ("cross_entropy", "kullback_leibler")),
        ("cross_entropy", {"objective": "binary"}, BINARY),
        *(("cross_entropy_lambda", {"objective": f"cross_entropy{end}"}, SHARES) for end in ("", "_lambda")),
        ("kullback_leibler", {"objective": "cross_entropy_lambda"}, SHARES),
    ],
)
def test_metrics_of_rows_match(metric: str, params: Params, labels: Array, weights: Array | None) -> None:
    Evaluated(metric, params, SCORES, labels, weights).check()


@pytest.mark.parametrize("metric", ["binary_logloss", "cross_entropy", "kullback_leibler", "auc", "average_precision"])
def test_sure_probabilities_match(metric: str) -> None:
    Evaluated(metric, {"objective": "binary"}, np.round(SCORES * 10), BINARY).check()
    if not metric.startswith("a"):  # probabilities of exactly 1 are ties, which the scores are not
        Evaluated(metric, {"objective": "binary"}, SCORES.round() * 30, BINARY, WEIGHTS).check()


@pytest.mark.parametrize("metric", ["poisson", "tweedie", "gamma", "gamma_deviance"])
@pytest.mark.parametrize("score", [0.0, -1.0, 1e-12, 1e-5])
def test_means_that_are_none_match(metric: str, score: float) -> None:
    Evaluated(metric, {"objective": "regression"}, np.full(ROWS, score), POSITIVE).check()


@pytest.mark.parametrize("weights", [None, SOME_ZERO], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("scores", [SCORES, COARSE, NEARLY_TIED], ids=["distinct", "tied", "nearly tied"])
@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_areas_match(metric: str, scores: Array, weights: Array | None) -> None:
    Evaluated(metric, {"objective": "binary"}, scores, BINARY, weights).check()
    Evaluated(metric, {"objective": "regression"}, scores, COUNTS - 1, weights).check()
    Evaluated(metric, {"objective": "lambdarank"}, scores, RELEVANCE, weights).check()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_areas_of_one_kind_of_label_match(metric: str, label: float) -> None:
    Evaluated(metric, {"objective": "regression"}, SCORES, np.full(ROWS, label), WEIGHTS).check()


@pytest.mark.parametrize("weights", [None, SOME_ZERO], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("scores", [COARSE, NEARLY_TIED], ids=["tied", "nearly tied"])
@pytest.mark.parametrize(
    ("metric", "params"),
    [
        ("ndcg", {"objective": "lambdarank"}),
        ("ndcg", {"objective": "rank_xendcg", "eval_at": [60, 3]}),
        ("ndcg", {"objective": "lambdarank", "ndcg_eval_at": "7,1", "label_gain": "0,1,2,2,9.5"}),
        ("ndcg", {"objective": "regression", "label_gain": [1, 2, 3, 4, 5]}),
        ("map", {"objective": "lambdarank"}),
        ("map", {"objective": "regression", "eval_at": 60}),
    ],
)
def test_ranking_metrics_match(metric: str, params: Params, scores: Array, weights: Array | None) -> None:
    Evaluated(metric, params, scores, RELEVANCE, weights).check()


@pytest.mark.parametrize("metric", ["ndcg", "map"])
def test_groups_that_all_lack_a_relevant_row_match(metric: str) -> None:
    Evaluated(metric, {"objective": "lambdarank"}, SCORES, RELEVANCE * 0, WEIGHTS).check()


@pytest.mark.parametrize("weights", [None, SOME_ZERO], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("digits", [15, 1])
@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
@pytest.mark.parametrize(
    ("metric", "params"),
    [
        ("multi_logloss", {}),
        ("multi_error", {}),
        ("multi_error", {"multi_error_top_k": 2}),
        ("auc_mu", {}),
    ],
)
def test_metrics_of_classes_match(
    metric: str, params: Params, objective: str, digits: int, weights: Array | None
) -> None:
    params = {"objective": objective, "num_class": 4, **params}
    Evaluated(metric, params, np.round(CLASS_SCORES, digits), CLASSES, weights).check()


@pytest.mark.parametrize("digits", [15, 0])  # with others, LightGBM's rounding errors tell tied rows apart
@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_auc_mu_of_other_planes_matches(objective: str, digits: int) -> None:
    planes = [5, 1, 2, 3, 1, 0, 4, 1, 2, 3, 0, 1, 4, 1, 1, 0]
    params = {"objective": objective, "num_class": 4, "auc_mu_weights": planes}
    Evaluated("auc_mu", params, np.round(CLASS_SCORES, digits), CLASSES, WEIGHTS).check()


def test_auc_mu_of_uneven_planes_matches_where_scores_are_known() -> None:
    uneven = {"num_class": 4, "auc_mu_weights": [0, 1, 2, 3, 9, 0, 4, 1, 2, -3, 0, 1, 4, 1, 1, 0]}
    Evaluated("auc_mu", {"objective": "multiclassova", **uneven}, CLASS_SCORES, CLASSES).check()
    with pytest.raises(InvalidArgumentError, match="multi_logloss"):
        metrics_named("auc_mu", {"objective": "multiclass", **uneven})
    with pytest.raises(InvalidArgumentError, match="objective is None"):
        metrics_named("auc_mu", {"num_class": 4})


def test_auc_mu_without_rows_of_a_class_matches() -> None:
    labels = np.minimum(CLASSES, 2)
    Evaluated("auc_mu", {"objective": "multiclass", "num_class": 4}, CLASS_SCORES, labels).check()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_metrics_of_a_trained_booster_match(weights: Array | None) -> None:
    features, seen = np.stack([SCORES, SHARES], axis=1), np.arange(ROWS) % 3 > 0
    params = {"verbosity": -1, "num_threads": 1, "num_leaves": 4, "objective": "multiclass", "num_class": 4}
    names = ["auc_mu", "multi_logloss", "multi_error"]
    train = lgb.Dataset(features[seen], CLASSES[seen])
    valid = lgb.Dataset(features, CLASSES, train, weights)
    kept: list[Array] = []
    history: dict[str, dict[str, list[float]]] = {}
    lgb.train(
        {**params, "metric": names},
        train,
        10,
        [valid],
        ["valid"],
        feval=lambda predictions, data: kept.append(predictions.copy()) or ("kept", 0.0, False),
        callbacks=[lgb.record_evaluation(history)],
    )
    for name in names:
        (metric,) = metrics_named(name, params)
        found = [metric.evaluate(each, CLASSES, weights, reducer=Reducer()) for each in kept]
        assert found == pytest.approx(history["valid"][name], rel=1e-6)


@pytest.mark.parametrize("value", [0.1, 3.0, 1000.1])
def test_r2_of_equal_labels_is_0_or_1(value: float) -> None:
    labels = np.full(ROWS, value, dtype=np.float32)
    Evaluated("r2", {"objective": "regression"}, SCORES, labels).check()
    Evaluated("r2", {"objective": "regression"}, labels.astype(np.float64), labels, WEIGHTS).check()
    # LightGBM's value is a quotient of rounding errors here.
    (r2,) = metrics_named("r2", {})
    assert r2.evaluate(SCORES, labels, WEIGHTS, reducer=Reducer()) == 0.0


ALIASES = {
    "l1": ("mae", "mean_absolute_error", "regression_l1"),
    "l2": ("mse", "mean_squared_error", "regression_l2", "regression", "MSE"),
    "rmse": ("root_mean_squared_error", "l2_root"),
    "mape": ("mean_absolute_percentage_error",),
    "ndcg@2": ("ndcg", "lambdarank", "rank_xendcg", "xendcg", "xe_ndcg", "xe_ndcg_mart", "xendcg_mart"),
    "map@2": ("map", "mean_average_precision"),
    "binary_logloss": ("binary",),
    "multi_logloss": ("multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr"),
    "cross_entropy": ("xentropy",),
    "cross_entropy_lambda": ("xentlambda",),
    "kullback_leibler": ("kldiv",),
}


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name, all_ in ALIASES.items() for alias in all_])
def test_aliases_name_what_lightgbm_reports(name: str, alias: str) -> None:
    several = name == "multi_logloss"
    objective = {"objective": "multiclass", "num_class": 4} if several else {"objective": "lambdarank"}
    params = {**objective, "eval_at": 2}
    scores = CLASS_SCORES if several else SCORES
    evaluated = Evaluated(alias, params, scores, CLASSES if several else BINARY)
    assert list(evaluated.expected) == [metric.name for metric in evaluated.metrics] == [name]


def test_r2_is_maximized_though_lightgbm_says_otherwise() -> None:
    assert not Evaluated("r2", {"objective": "regression"}, SCORES, COUNTS).maximize["r2"]
    assert [metric.maximize for metric in metrics_named("r2", {})] == [True]


OBJECTIVES = "regression l2 mse rmse l2_root regression_l1 mae huber fair poisson quantile mape gamma tweedie binary"
OBJECTIVES += " cross_entropy xentlambda lambdarank rank_xendcg xendcg multiclass softmax ova"


@pytest.mark.parametrize("objective", OBJECTIVES.split())
def test_default_metrics_are_those_of_lightgbm(objective: str) -> None:
    several = objective in {"multiclass", "softmax", "ova"}
    params = {"objective": objective, **({"num_class": 4} if several else {})}
    labels = CLASSES if several else BINARY + (objective == "gamma")
    evaluated = Evaluated("", params, CLASS_SCORES if several else SCORES, labels)
    found = [metric.name for metric in metrics_named(default_metric(objective), params)]
    assert found == list(evaluated.expected)


@pytest.mark.parametrize(
    ("name", "nearest"), [("rsme", "'rmse'"), ("logloss", "There are"), ("auc_nu", "'auc_mu'"), ("ndgc", "'ndcg'")]
)
def test_unknown_names_suggest_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownParameterError, match=nearest):
        metrics_named(name, {})
    with pytest.raises(UnknownParameterError, match=name):
        default_metric(name)


def test_no_metric_has_names_too() -> None:
    assert [metrics_named(name, {}) for name in ("None", "custom", "na", "null")] == [()] * 4
    assert default_metric("custom") == ""


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *(("ndcg", {"eval_at": wrong}) for wrong in ([0], [1.5], "a,2", -1, [True], [None])),
        *(("ndcg", {"label_gain": wrong}) for wrong in ([0, -1], [3, 1], "x", [math.inf])),
        *(("huber", {"alpha": wrong}) for wrong in (0, -1, "x", math.nan, [1, 2])),
        ("fair", {"fair_c": 0}),
        *(("tweedie", {"tweedie_variance_power": wrong}) for wrong in (0.9, 2, "")),
        *(("multi_error", {"multi_error_top_k": wrong}) for wrong in (0, 1.5)),
        *(("auc_mu", {"num_class": 2, "auc_mu_weights": wrong}) for wrong in ([0, 1], [0, 1, 0, 0])),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(name: str, params: Params) -> None:
    with pytest.raises(InvalidArgumentError, match=next(reversed(params))):
        metrics_named(name, params)


FORBIDDEN = [("ndcg", RELEVANCE + 0.5), ("ndcg", RELEVANCE + 30), ("ndcg", RELEVANCE - 1), ("gamma", COUNTS * 0)]
FORBIDDEN += [("gamma_deviance", COUNTS * 0), ("cross_entropy", COUNTS + 1), ("kullback_leibler", COUNTS - 1)]


@pytest.mark.parametrize(("name", "labels"), FORBIDDEN)
def test_labels_that_lightgbm_forbids_are_refused(name: str, labels: Array) -> None:
    for metric in metrics_named(name, {}):
        with pytest.raises(InvalidValueError):
            metric.evaluate(SCORES, labels.astype(np.float32), None, GROUPS, reducer=Reducer())


@pytest.mark.parametrize(
    ("name", "weights"), [("cross_entropy_lambda", SOME_ZERO), ("l2", -WEIGHTS), ("auc", -WEIGHTS)]
)
def test_weights_that_lightgbm_forbids_are_refused(name: str, weights: Array) -> None:
    (metric,) = metrics_named(name, {})
    with pytest.raises(InvalidValueError):
        metric.evaluate(SCORES, SHARES, weights, reducer=Reducer())


@pytest.mark.parametrize("name", ["l2", "auc", "r2", "gamma_deviance", "ndcg", "map", "cross_entropy_lambda"])
def test_predictions_that_do_not_fit_are_refused(name: str) -> None:
    for metric in metrics_named(name, {}):
        with pytest.raises(InvalidArgumentError):
            metric.evaluate(CLASS_SCORES, SHARES + 1, None, GROUPS, reducer=Reducer())


def test_metrics_travel_to_workers() -> None:
    params = {"objective": "multiclass", "num_class": 4, "auc_mu_weights": [1] * 16}
    for name in ["ndcg", "map", "auc", "average_precision", "auc_mu", "multi_error", "r2", "gamma_deviance", "huber"]:
        for metric in metrics_named(name, params):
            assert pickle.loads(pickle.dumps(metric)).name == metric.name


def random_rows(seed: int, weighted: bool) -> Evaluated:
    of = object.__new__(Evaluated)
    chance = np.random.default_rng(seed)
    of.predictions = np.round(chance.standard_normal(200), int(chance.integers(0, 4)))
    of.predictions += chance.integers(0, 2, 200) * 2.0**-50
    of.labels = chance.integers(0, 2, 200).astype(np.float32)
    of.weights = np.round(chance.random(200), 2).astype(np.float32) if weighted else None
    of.groups = None
    return of


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 200), max_size=2).map(sorted),
    st.sampled_from([1, 17, 10_000]),
    st.booleans(),
)
def test_areas_depend_neither_on_workers_nor_on_slices(
    seed: int, cuts: list[int], slice_rows: int, weighted: bool
) -> None:
    of = random_rows(seed, weighted)
    metrics = [metric(rows) for metric in (Auc, AveragePrecision) for rows in (slice_rows, SLICE_ROWS)]
    (alone,) = on_workers(metrics, of, [])
    assert {bits(values) for values in on_workers(metrics, of, cuts)} == {bits(alone)}
    assert alone[::2] == pytest.approx(alone[1::2], rel=1e-12)

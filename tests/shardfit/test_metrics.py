import logging
import math
import pickle
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.metrics import CustomMetric, Metric, Reducer, metric_named
from shardfit.metrics.area import PrecisionRecallArea, RocArea
from shardfit.testing.lockstep import run_in_lockstep

Array = npt.NDArray[Any]

ROW_METRICS = [
    "auc",
    "aucpr",
    "error",
    "error@0.7",
    "gamma-deviance",
    "gamma-nloglik",
    "logloss",
    "mae",
    "mape",
    "mphe",
]
ROW_METRICS += ["poisson-nloglik", "rmse", "rmsle", "tweedie-nloglik@1.3"]
CLASS_METRICS = ["merror", "mlogloss", "auc", "aucpr"]
RANKING_METRICS = ["ndcg", "ndcg@3", "ndcg@3-", "map", "map@2-", "pre", "pre@3", "auc", "aucpr"]


@dataclass(frozen=True)
class Rows:
    """Rows to evaluate, with groups as run lengths."""

    predictions: Array
    labels: Array
    weights: Array | None = None
    run_lengths: Array | None = None

    def taken(self, rows: Array | slice, groups: slice | None = None) -> "Rows":
        weights = None if self.weights is None else self.weights[rows if groups is None else groups]
        run_lengths = None if self.run_lengths is None or groups is None else self.run_lengths[groups]
        return Rows(self.predictions[rows], self.labels[rows], weights, run_lengths)

    def evaluated(self, metric: Metric, reducer: Reducer) -> float:
        groups = None if self.run_lengths is None else np.append(0, np.cumsum(self.run_lengths)).astype(np.int64)
        return metric.evaluate(self.predictions, self.labels, self.weights, groups, reducer=reducer)

    def dealt(self, cuts: list[int]) -> list["Rows"]:
        """Contiguous shards between cuts, which count groups where there are groups, else rows."""
        bounds = [0, *sorted(cuts), len(self.labels) if self.run_lengths is None else len(self.run_lengths)]
        spans = [slice(start, stop) for start, stop in pairwise(bounds)]
        if self.run_lengths is None:
            return [self.taken(span) for span in spans]
        starts = np.append(0, np.cumsum(self.run_lengths))
        return [self.taken(slice(int(starts[span.start]), int(starts[span.stop])), span) for span in spans]


def alone(metric: Metric, rows: Rows) -> float:
    return rows.evaluated(metric, Reducer())


def on_shards(metric: Metric, shards: list[Rows]) -> list[float]:
    return run_in_lockstep(len(shards), lambda reducer: shards[reducer.rank].evaluated(metric, reducer))


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else np.float64(value).tobytes()


def random_rows(seed: int, rows: int, shape: tuple[int, ...] = (), weighted: bool = True) -> Rows:
    random = np.random.default_rng(seed)
    predictions = np.round(random.random((rows, *shape)), int(random.integers(1, 8))).astype(np.float32)
    weights = np.round(random.random(rows) * 3, 1).astype(np.float32) if weighted else None
    return Rows(predictions, random.integers(0, 2, rows).astype(np.float32), weights)


def random_groups(seed: int, groups: int, weighted: bool) -> Rows:
    random = np.random.default_rng(seed)
    run_lengths = random.integers(1, 9, groups)
    rows = random_rows(seed, int(run_lengths.sum()), weighted=False)
    weights = random.random(groups).astype(np.float32) if weighted else None
    return Rows(rows.predictions, rows.labels, weights, run_lengths)


def assert_same_bits(metric: Metric, rows: Rows, cuts: list[int]) -> None:
    expected = alone(metric, rows)
    assert {bits(value) for value in on_shards(metric, rows.dealt(cuts))} == {bits(expected)}


seeds = st.integers(0, 2**32 - 1)
row_cuts = st.lists(st.integers(0, 40), max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ROW_METRICS), seeds, row_cuts, st.booleans())
def test_any_shards_give_the_same_bits(name: str, seed: int, cuts: list[int], weighted: bool) -> None:
    assert_same_bits(metric_named(name), random_rows(seed, 40, weighted=weighted), cuts)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(CLASS_METRICS), seeds, row_cuts)
def test_any_shards_of_several_classes_give_the_same_bits(name: str, seed: int, cuts: list[int]) -> None:
    rows = random_rows(seed, 40, shape=(3,))
    labels = np.random.default_rng(seed).integers(0, 3, 40).astype(np.float32)
    assert_same_bits(metric_named(name), Rows(rows.predictions, labels, rows.weights), cuts)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["rmse", "logloss", "auc", "aucpr", "error"]), seeds, row_cuts)
def test_any_shards_of_several_outputs_give_the_same_bits(name: str, seed: int, cuts: list[int]) -> None:
    rows = random_rows(seed, 40, shape=(2,))
    labels = np.random.default_rng(seed).integers(0, 2, (40, 2)).astype(np.float32)
    assert_same_bits(metric_named(name), Rows(rows.predictions, labels, rows.weights), cuts)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RANKING_METRICS), seeds, st.lists(st.integers(0, 12), max_size=4), st.booleans())
def test_any_shards_of_whole_groups_give_the_same_bits(name: str, seed: int, cuts: list[int], weighted: bool) -> None:
    assert_same_bits(metric_named(name), random_groups(seed, 12, weighted), cuts)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ROW_METRICS), seeds)
def test_any_order_of_the_rows_gives_the_same_bits(name: str, seed: int) -> None:
    rows = random_rows(seed, 60)
    shuffled = rows.taken(np.random.default_rng(seed).permutation(60))
    assert bits(alone(metric_named(name), shuffled)) == bits(alone(metric_named(name), rows))


@settings(max_examples=30, deadline=None)
@given(seeds, st.lists(st.integers(0, 60), max_size=4), st.sampled_from([1, 3, 17, 1000]))
def test_areas_do_not_depend_on_workers_when_scores_are_gathered_in_slices(
    seed: int, cuts: list[int], slice_rows: int
) -> None:
    rows = random_rows(seed, 60)
    for metric in (RocArea(slice_rows), PrecisionRecallArea(slice_rows)):
        assert_same_bits(metric, rows, cuts)
        assert alone(metric, rows) == pytest.approx(alone(type(metric)(), rows), rel=1e-12, nan_ok=True)


def test_more_rows_than_a_block_give_the_same_bits_on_uneven_shards() -> None:
    rows = random_rows(3, 150_001)
    for name in ("logloss", "poisson-nloglik", "auc"):
        assert_same_bits(metric_named(name), rows, [7, 65_536 + 11, 140_000])


def test_areas_agree_with_sklearn_on_tied_weighted_scores() -> None:
    from sklearn.metrics import roc_auc_score

    rows = random_rows(5, 3000)
    coarse = Rows(np.round(rows.predictions, 2), rows.labels, rows.weights)
    expected = roc_auc_score(coarse.labels, coarse.predictions, sample_weight=coarse.weights)
    assert alone(metric_named("auc"), coarse) == pytest.approx(expected, rel=1e-12)


def test_the_area_of_classes_agrees_with_sklearn_one_against_the_rest() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(6)
    predictions = random.dirichlet([1, 1, 1], 500).astype(np.float32)
    labels = random.integers(0, 3, 500).astype(np.float32)
    areas = [roc_auc_score(labels == column, predictions[:, column]) for column in range(3)]
    expected = np.average(areas, weights=np.bincount(labels.astype(int)))
    assert alone(metric_named("auc"), Rows(predictions, labels)) == pytest.approx(expected, rel=1e-12)


def test_precision_and_recall_of_many_distinct_scores_approach_average_precision() -> None:
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(7)
    predictions = random.random(200_000).astype(np.float32)
    labels = (random.random(200_000) < predictions).astype(np.float32)
    expected = average_precision_score(labels, predictions)
    assert alone(metric_named("aucpr"), Rows(predictions, labels)) == pytest.approx(expected, abs=1e-4)


def test_ndcg_agrees_with_sklearn_on_distinct_scores() -> None:
    from sklearn.metrics import ndcg_score

    random = np.random.default_rng(8)
    predictions, labels = random.random(20).astype(np.float32), random.integers(1, 4, 20).astype(np.float32)
    rows = Rows(predictions, labels, run_lengths=np.array([20]))
    expected = ndcg_score([labels], [predictions], k=5)
    assert alone(metric_named("ndcg@5", ndcg_exp_gain=False), rows) == pytest.approx(expected, rel=1e-12)


def test_losses_agree_with_sklearn() -> None:
    from sklearn import metrics

    rows = random_rows(9, 500)
    predictions, labels = np.clip(rows.predictions.astype(np.float64), 0.01, 0.99), rows.labels
    exact = Rows(predictions, labels, rows.weights)
    expected = metrics.log_loss(labels, predictions, sample_weight=rows.weights)
    assert alone(metric_named("logloss"), exact) == pytest.approx(expected, rel=1e-12)
    expected = metrics.mean_absolute_error(labels, predictions, sample_weight=rows.weights)
    assert alone(metric_named("mae"), exact) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels", [[0.0, 0.0], [1.0, 1.0]])
@pytest.mark.parametrize("name", ["auc", "aucpr"])
def test_an_area_of_one_class_is_nan_and_said_once(
    name: str, labels: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rows = Rows(np.array([0.1, 0.7], "f4"), np.array(labels, "f4"))
    with caplog.at_level(logging.WARNING):
        values = on_shards(metric_named(name), rows.dealt([1]))
    assert all(math.isnan(value) for value in values)
    assert caplog.text.count("is undefined") == 1


@pytest.mark.parametrize("name", ["auc", "aucpr", "logloss", "merror", "ndcg"])
def test_no_rows_on_any_worker_are_nan(name: str) -> None:
    shape = (0, 3) if name == "merror" else (0,)
    rows = Rows(np.zeros(shape, "f4"), np.zeros(0, "f4"), None, np.zeros(0, int) if name == "ndcg" else None)
    assert all(math.isnan(value) for value in on_shards(metric_named(name), rows.dealt([0])))


@pytest.mark.parametrize("name", ["auc", "aucpr", "rmse", "logloss"])
def test_a_nan_prediction_on_one_worker_is_nan_on_all(name: str) -> None:
    rows = Rows(np.array([0.1, np.nan, 0.3, 0.2], "f4"), np.array([0, 1, 0, 1], "f4"))
    assert all(math.isnan(value) for value in on_shards(metric_named(name), rows.dealt([3])))


def test_a_loss_that_is_infinite_for_one_row_is_infinite() -> None:
    rows = Rows(np.array([1.0, 2.0], "f4"), np.array([0.0, 2.0], "f4"))
    assert on_shards(metric_named("mape"), rows.dealt([1])) == [math.inf, math.inf]


def test_negative_zero_and_zero_are_one_score() -> None:
    rows = Rows(np.array([-0.0, 0.0], "f4"), np.array([1, 0], "f4"))
    assert alone(metric_named("auc"), rows) == 0.5


def test_infinite_scores_have_their_place() -> None:
    rows = Rows(np.array([-np.inf, np.inf, -1, 1], "f4"), np.array([0, 1, 0, 1], "f4"))
    assert alone(metric_named("auc"), rows) == 1.0


def test_rows_without_weight_do_not_count() -> None:
    rows = random_rows(11, 50)
    assert rows.weights is not None
    counted = rows.weights > 0
    for name in ("auc", "aucpr", "logloss"):
        assert bits(alone(metric_named(name), rows)) == bits(alone(metric_named(name), rows.taken(counted)))


def test_a_label_between_classes_counts_in_part_for_both() -> None:
    halved = Rows(np.array([0.2, 0.8, 0.5], "f4"), np.array([0, 1, 0.5], "f4"))
    split = Rows(np.array([0.2, 0.8, 0.5, 0.5], "f4"), np.array([0, 1, 1, 0], "f4"), np.array([1, 1, 0.5, 0.5], "f4"))
    assert alone(metric_named("auc"), halved) == alone(metric_named("auc"), split)


def test_group_weights_may_be_given_for_each_row() -> None:
    rows = random_groups(12, 10, weighted=True)
    assert rows.weights is not None
    assert rows.run_lengths is not None
    by_row = Rows(rows.predictions, rows.labels, np.repeat(rows.weights, rows.run_lengths), rows.run_lengths)
    for name in ("ndcg@3", "rmse"):
        assert bits(alone(metric_named(name), by_row)) == bits(alone(metric_named(name), rows))


@pytest.mark.parametrize(("name", "expected"), [("ndcg", 1.0), ("ndcg-", 0.0), ("map@3", 1.0), ("map@3-", 0.0)])
def test_the_minus_decides_what_a_group_without_relevant_rows_counts(name: str, expected: float) -> None:
    rows = Rows(np.array([0.5, 0.1], "f4"), np.zeros(2, "f4"), np.array([0.25], "f4"), np.array([2]))
    assert alone(metric_named(name), rows) == expected


@pytest.mark.parametrize("name", [*ROW_METRICS, *RANKING_METRICS])
def test_a_metric_is_the_same_after_pickling(name: str) -> None:
    rows = random_groups(13, 20, weighted=True)
    pickled = pickle.loads(pickle.dumps(metric_named(name)))
    assert bits(alone(pickled, rows)) == bits(alone(metric_named(name), rows))


@pytest.mark.parametrize(
    ("name", "rows", "error"),
    [
        ("rmse", Rows(np.zeros((2, 3), "f4"), np.zeros(2, "f4")), InvalidArgumentError),
        ("rmse", Rows(np.zeros(2, "f4"), np.zeros(2, "f4"), np.ones(3, "f4")), InvalidArgumentError),
        ("rmse", Rows(np.zeros(2, "f4"), np.zeros(2, "f4"), np.array([1, -1], "f4")), InvalidValueError),
        ("rmse", Rows(np.zeros(2, "f4"), np.zeros(2, "f4"), np.array([1, np.nan], "f4")), InvalidValueError),
        ("merror", Rows(np.zeros(2, "f4"), np.zeros(2, "f4")), InvalidArgumentError),
        ("merror", Rows(np.zeros((2, 2), "f4"), np.array([0, 2], "f4")), InvalidValueError),
        ("mlogloss", Rows(np.zeros((2, 2), "f4"), np.array([0, 0.5], "f4")), InvalidValueError),
        ("auc", Rows(np.zeros((2, 2), "f4"), np.zeros((2, 3), "f4")), InvalidArgumentError),
        ("auc", Rows(np.zeros(2, "f4"), np.array([0, 2], "f4")), InvalidValueError),
        ("auc", Rows(np.zeros((2, 2), "f4"), np.zeros(2, "f4"), None, np.array([2])), InvalidArgumentError),
        ("aucpr", Rows(np.zeros(2, "f4"), np.array([0, 2], "f4"), None, np.array([2])), InvalidValueError),
        ("ndcg", Rows(np.zeros(2, "f4"), np.zeros(2, "f4")), InvalidArgumentError),
        ("ndcg", Rows(np.zeros(3, "f4"), np.zeros(3, "f4"), None, np.array([2])), InvalidArgumentError),
        ("ndcg", Rows(np.zeros(2, "f4"), np.array([0, 0.5], "f4"), None, np.array([2])), InvalidValueError),
        ("ndcg", Rows(np.zeros(2, "f4"), np.array([0, 32], "f4"), None, np.array([2])), InvalidValueError),
        ("map", Rows(np.zeros(2, "f4"), np.array([0, 2], "f4"), None, np.array([2])), InvalidValueError),
        ("pre", Rows(np.zeros(2, "f4"), np.array([0, 1], "f4"), np.ones(3, "f4"), np.array([2])), InvalidArgumentError),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, rows: Rows, error: type[Exception]) -> None:
    with pytest.raises(error):
        alone(metric_named(name), rows)


def test_quantiles_need_a_prediction_for_each() -> None:
    metric = metric_named("quantile", quantile_alpha=(0.25, 0.75))
    assert alone(metric, Rows(np.array([[1, 3]], "f4"), np.array([2], "f4"))) == 0.25
    with pytest.raises(InvalidArgumentError, match="2 quantiles"):
        alone(metric, Rows(np.zeros(2, "f4"), np.zeros(2, "f4")))


def mean_bias(predictions: Array, labels: Array, weights: Array | None, summed: bool) -> tuple[Any, Any]:
    assert len(labels), "a custom metric is never called without rows"
    weights = np.ones(len(labels), "f4") if weights is None else weights
    errors = (predictions - labels).astype(np.float64) * weights
    return (errors.sum(), weights.sum(dtype=np.float64)) if summed else (errors, weights)


@settings(max_examples=30, deadline=None)
@given(seeds, row_cuts, st.booleans())
def test_a_custom_metric_is_reduced_over_any_shards_and_not_called_without_rows(
    seed: int, cuts: list[int], summed: bool
) -> None:
    metric = CustomMetric("bias", partial(mean_bias, summed=summed), maximize=False)
    rows = random_rows(seed, 40)
    assert_same_bits(metric, rows, [0, *cuts])
    expected = np.average(rows.predictions - rows.labels, weights=rows.weights)
    assert alone(metric, rows) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("returned", [0.5, (1.0,), (1.0, 2.0, 3.0), ("a", 1.0), None])
def test_a_custom_metric_must_return_a_numerator_and_a_denominator(returned: Any) -> None:
    metric = CustomMetric("mine", lambda predictions, labels, weights: returned, maximize=True)
    with pytest.raises(InvalidArgumentError, match="mine"):
        alone(metric, random_rows(1, 4))

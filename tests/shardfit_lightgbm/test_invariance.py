"""P2: the same data gives the same model, byte for byte, at any number of workers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from shardfit.binned_trainer import BinReference
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError
from shardfit.hookspecs import hookimpl
from shardfit.matrix_reader import MatrixReader
from shardfit.registry import Registry
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table, write_unevenly
from shardfit.trainer import RunSettings
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.config import LightGBMConfig, configure
from shardfit_lightgbm.matrix import LibraryReference, ShardMatrix, ingest, open_reference
from shardfit_lightgbm.trainer import LightGBMTrainer
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_lightgbm.training import ROLES, table, trained, trees_of

PARAMS = {"num_leaves": 31, "learning_rate": 0.3, "metric": ["binary_logloss", "auc"]}
TABLE, HELD_OUT = table(2_000), table(500, seed=1)
WEIGHTED = replace(ROLES, weight="weight")
CLASSES = {"objective": "multiclass", "num_class": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_unevenly(awkward_table(8_000), tmp_path_factory.mktemp("train"))


def fitted(files: list[str], workers: int, cpus: int = 1, **changes: Any) -> LightGBMEstimator:
    engine = changes.pop("engine", "inline" if workers == 1 else "ray")
    arguments = {"objective": "binary", "params": PARAMS, "early_stopping_rounds": 4, **changes}
    estimator = LightGBMEstimator(12, scaling_config=LightGBMScalingConfig(workers, cpus, engine=engine), **arguments)
    estimator.fit(
        DataConnector.from_parquet(files),
        input_cols=FEATURES,
        label_col="late",
        weight_col="weight",
        categorical_cols=CATEGORICAL,
        eval_set=DataConnector.from_arrow(awkward_table(2_000, seed=1)),
    )
    return estimator


def assert_same(found: LightGBMEstimator, expected: LightGBMEstimator) -> None:
    assert trees_of(found.result) == trees_of(expected.result)
    assert found.get_eval_results() == expected.get_eval_results()
    assert found.result.best_round == expected.result.best_round
    assert all(coverage.exact for coverage in found.result.coverage.values())


@pytest.fixture(scope="module")
def inline(files: list[str]) -> LightGBMEstimator:
    return fitted(files, workers=1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_worker_processes_grow_the_same_trees_as_inline(
    inline: LightGBMEstimator, files: list[str], workers: int, four_processes: ProcessEngine
) -> None:
    assert inline.result.plan.layout.engine == "inline"
    other = fitted(files, workers, engine="ray")
    assert len(four_processes.pids) == other.result.plan.layout.workers == workers
    assert_same(other, inline)


@pytest.mark.ray
def test_ray_workers_grow_the_same_trees_as_inline(
    inline: LightGBMEstimator, files: list[str], ray_address: str
) -> None:
    other = fitted(files, 2, engine="ray")
    assert (other.result.plan.layout.engine, other.result.plan.layout.workers) == ("ray", 2)
    assert_same(other, inline)


def test_the_number_of_threads_and_the_order_of_files_change_nothing(
    files: list[str], inline: LightGBMEstimator
) -> None:
    assert_same(fitted(list(reversed(files)), 1), inline)
    assert_same(fitted(files, 1, cpus=2), inline)
    assert_same(fitted(files, 1, params={**PARAMS, "num_threads": 3}), inline)


def squared_error(predictions: Any, data: lgb.Dataset) -> tuple[Any, Any]:
    return predictions - data.get_label(), np.ones_like(predictions)


def softmax(predictions: Any, data: lgb.Dataset) -> tuple[Any, Any]:
    shares = np.exp(predictions) / np.exp(predictions).sum(axis=1, keepdims=True)
    return shares - np.eye(3)[data.get_label().astype(int)], 2 * shares * (1 - shares)


def gap(predictions: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    return np.abs(predictions - labels), np.ones(len(labels))


def labelled(label: str, **columns: Any) -> ColumnRoles:
    return replace(ROLES, label=(label,), **columns)


CASES: dict[str, tuple[ColumnRoles, dict[str, Any]]] = {
    "regression": (ROLES, {"custom_metric": gap}),
    "small leaves": (WEIGHTED, {"num_leaves": 120, "min_data_in_leaf": 3, "num_iterations": 3}),
    "large leaves": (WEIGHTED, {"num_leaves": 60, "min_data_in_leaf": 97}),
    "multiclass": (labelled("grade"), CLASSES),
    "multiclass, bagging": (labelled("grade"), {**CLASSES, "bagging_fraction": 0.5, "bagging_freq": 2}),
    "multiclassova, weights": (labelled("grade", weight="weight"), {**CLASSES, "objective": "ova"}),
    "lambdarank": (labelled("grade", group="query"), {"objective": "lambdarank", "eval_at": [1, 3]}),
    "lambdarank, bagging": (
        labelled("grade", group="query"),
        {"objective": "lambdarank", "bagging_fraction": 0.5, "bagging_freq": 1},
    ),
    "poisson, weights": (labelled("claims", weight="weight"), {"objective": "poisson"}),
    "poisson, bagging": (labelled("claims"), {"objective": "poisson", "bagging_fraction": 0.3, "bagging_freq": 1}),
    "tweedie": (labelled("claims"), {"objective": "tweedie"}),
    "cross_entropy, bagging": (
        labelled("share"),
        {"objective": "cross_entropy", "bagging_fraction": 0.2, "bagging_freq": 1},
    ),
    "cross_entropy, rows without weight": (labelled("share", weight="some_weight"), {"objective": "cross_entropy"}),
    "unbalanced": (labelled("late"), {"objective": "binary", "is_unbalance": True}),
    "monotone": (WEIGHTED, {"monotone_constraints": [-1, 0, 1, 0, 0, 0]}),
    "bagging": (WEIGHTED, {"bagging_fraction": 0.6, "bagging_freq": 2}),
    "bagging without weights": (ROLES, {"bagging_fraction": 0.6, "bagging_freq": 1}),
    "feature_fraction": (WEIGHTED, {"feature_fraction": 0.5}),
    "feature_fraction_bynode": (WEIGHTED, {"feature_fraction_bynode": 0.5}),
    "extra_trees": (WEIGHTED, {"extra_trees": True}),
    "extra_trees, feature_fraction": (WEIGHTED, {"extra_trees": True, "feature_fraction": 0.6}),
    "dart": (WEIGHTED, {"boosting": "dart", "drop_rate": 0.4}),
    "dart, feature_fraction": (WEIGHTED, {"boosting": "dart", "drop_rate": 0.4, "feature_fraction": 0.5}),
    "path_smooth": (WEIGHTED, {"path_smooth": 2.0}),
    "rows without weight": (replace(ROLES, weight="some_weight"), {}),
    "initial scores in a column": (replace(WEIGHTED, base_margin=("margin",)), {}),
    "initial scores of 0": (ROLES, {"boost_from_average": False}),
    "a function": (ROLES, {"objective": squared_error, "bagging_fraction": 0.5, "bagging_freq": 1}),
    "a function, dart": (ROLES, {"objective": squared_error, "boosting": "dart", "drop_rate": 0.4}),
    "a function of classes": (labelled("grade"), {"objective": softmax, "num_class": 3}),
    "many bins": (WEIGHTED, {"max_bin": 700}),
    "few bins": (WEIGHTED, {"max_bin": 5}),
}


@pytest.mark.parametrize("name", CASES)
def test_workers_that_are_threads_grow_the_same_trees_as_one(name: str) -> None:
    roles, params = CASES[name]
    alone, other = [
        trained(TABLE, workers, roles, params=params, evals={"held": HELD_OUT, "one": HELD_OUT.slice(0, 40)})
        for workers in (1, 3)
    ]
    assert trees_of(alone).count("\nTree=") >= 3
    assert re.search(r"num_leaves=([3-9]|\d\d)", trees_of(alone))
    assert other.model.text == alone.model.text
    assert other.metrics == alone.metrics
    assert other.best_round == alone.best_round


def test_shards_on_which_lightgbm_crashed_when_it_summed_up_by_rows() -> None:
    rows = table(30_000)
    alone, other = (trained(rows, workers, params={"num_iterations": 1}) for workers in (1, 2))
    assert other.model.text == alone.model.text
    assert alone.model.text.count("[force_col_wise: 1]") == 1
    with pytest.raises(InvalidArgumentError, match="force_row_wise"):
        configure({"force_row_wise": True})


@pytest.mark.parametrize("distinct", [4, 100_000])
def test_rows_are_summed_up_one_by_one_where_every_feature_has_many_bins(distinct: int) -> None:
    random = np.random.default_rng(0)
    values = {name: random.integers(0, distinct, 30_000).astype(np.float32) for name in ("a", "b", "c")}
    y = (values["a"] - values["b"]) / distinct + random.normal(size=30_000)
    rows = pa.table({**values, "y": y, "d": pa.array(values["a"], mask=random.random(30_000) < 0.2)})
    roles = ColumnRoles(("a", "b", "c", "d"), ("y",))
    alone, other = (trained(rows, workers, roles) for workers in (1, 3))
    assert alone.model.text.count("[force_row_wise: 1]") == int(distinct > 4)
    assert other.model.text == alone.model.text


@pytest.mark.parametrize("objective", ["regression", "multiclass"])
def test_a_tree_that_cannot_be_split_is_the_same_without_an_initial_score(objective: str) -> None:
    roles = labelled("grade") if objective == "multiclass" else ROLES
    params = {"objective": objective, "boost_from_average": False, "min_sum_hessian_in_leaf": 1e6}
    params |= {"num_class": 3} if objective == "multiclass" else {}
    alone, other = (trained(TABLE, workers, roles, params=params) for workers in (1, 3))
    assert other.model.text == alone.model.text
    assert "num_leaves=1" in trees_of(alone)


class PerWorkerBins(LightGBMTrainer):
    """A deliberate mistake: every worker finds its own bins."""

    def ingest(
        self, context: Any, dataset: str, reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig
    ) -> ShardMatrix:
        features = np.concatenate([batch.features for batch in reader.batches()])[::7]
        points = tuple(np.unique(column[~np.isnan(column)])[-config.max_bin + 2 :] for column in features.T)
        own = open_reference(BinReference(reader.spec, points, {}), config, RunSettings(reader.spec.roles))
        return ingest(context, dataset, reader, replace(own, params=reference.params), config)


class StartOfEachWorker(LightGBMTrainer):
    """A deliberate mistake: the rows of a worker start from the average of its own."""

    def ingest(
        self, context: Any, dataset: str, reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig
    ) -> ShardMatrix:
        own = np.concatenate([batch.labels for batch in reader.batches()]).mean()
        return super().ingest(context, dataset, reader, reference, replace(config, initial_scores=(float(own),)))


@pytest.mark.parametrize("mutant", [PerWorkerBins, StartOfEachWorker])
def test_a_mutated_trainer_is_caught_by_comparing_trees(
    mutant: type[LightGBMTrainer], files: list[str], tmp_path: Path
) -> None:
    class Mutation:
        @hookimpl
        def shardfit_trainers(self) -> dict[str, Any]:
            return {"mutant": mutant, "sound": LightGBMTrainer}

    registry = Registry()
    registry.register(Mutation())

    def model(trainer: str, workers: int) -> str:
        return trees_of(trained(files, workers, trainer=trainer, stage=str(tmp_path), registry=registry))

    assert model("sound", 3) == model("sound", 1)
    assert model("mutant", 3) != model("mutant", 1)

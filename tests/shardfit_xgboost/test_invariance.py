"""P2: the same data gives the same model, bit for bit, at any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from shardfit.connector import DataConnector
from shardfit.hookspecs import hookimpl
from shardfit.matrix_reader import MatrixReader
from shardfit.registry import Registry
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table, write_unevenly
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.matrix import LibraryReference, ShardMatrix, ingest
from shardfit_xgboost.trainer import XGBTrainer
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_xgboost.training import Trees, model_of, trained

ROWS = 12_000
PARAMS = {"max_depth": 5, "learning_rate": 0.3, "eval_metric": ["logloss", "auc"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_unevenly(awkward_table(ROWS), tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def evaluation() -> DataConnector:
    return DataConnector.from_arrow(awkward_table(3_000, seed=1))


def fitted(files: list[str], workers: int, evaluation: DataConnector | None = None, **changes: Any) -> XGBEstimator:
    arguments = {"n_estimators": 12, "objective": "binary:logistic", "params": PARAMS, **changes}
    fit, engine = arguments.pop("fit", {}), arguments.pop("engine", "inline" if workers == 1 else "ray")
    estimator = XGBEstimator(scaling_config=XGBScalingConfig(workers, 1, engine=engine), **arguments)
    columns = {"label_col": "late", "weight_col": "weight", "categorical_cols": CATEGORICAL, **fit}
    estimator.fit(DataConnector.from_parquet(files), input_cols=FEATURES, eval_set=evaluation, **columns)
    return estimator


@pytest.fixture(scope="module")
def inline(files: list[str], evaluation: DataConnector) -> XGBEstimator:
    return fitted(files, workers=1, evaluation=evaluation, early_stopping_rounds=4)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_worker_processes_grow_the_same_trees_as_inline(
    inline: XGBEstimator, files: list[str], evaluation: DataConnector, workers: int, four_processes: ProcessEngine
) -> None:
    assert inline.result.plan.layout.engine == "inline"
    other = fitted(files, workers, evaluation, early_stopping_rounds=4, engine="ray")
    assert len(four_processes.pids) == other.result.plan.layout.workers == workers
    assert_same(other, inline)


@pytest.mark.ray
def test_ray_workers_grow_the_same_trees_as_inline(
    inline: XGBEstimator, files: list[str], evaluation: DataConnector, ray_address: str
) -> None:
    other = fitted(files, 2, evaluation, early_stopping_rounds=4, engine="ray")
    assert (other.result.plan.layout.engine, other.result.plan.layout.workers) == ("ray", 2)
    assert_same(other, inline)


def assert_same(other: XGBEstimator, inline: XGBEstimator) -> None:
    assert model_of(other.get_booster()) == model_of(inline.get_booster())
    assert other.get_eval_results() == inline.get_eval_results()
    assert other.result.model.best_iteration == inline.result.model.best_iteration
    assert all(coverage.exact for coverage in other.result.coverage.values())


def test_a_custom_objective_and_metric_work_distributed(
    files: list[str], evaluation: DataConnector, four_processes: ProcessEngine
) -> None:
    def mean_gap(predictions: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        return np.abs(predictions - labels), np.ones(len(labels))

    def objective(predictions: Any, data: xgb.DMatrix) -> tuple[Any, Any]:
        return predictions - data.get_label(), np.ones_like(predictions)

    changes = {
        "objective": objective,
        "custom_metric": mean_gap,
        "params": {"subsample": 0.7},
        "early_stopping_rounds": 3,
    }
    alone, together = fitted(files, 1, evaluation, **changes), fitted(files, 3, evaluation, **changes)
    assert model_of(alone.get_booster()) == model_of(together.get_booster())
    assert alone.get_eval_results() == together.get_eval_results()


def test_the_number_of_threads_and_the_order_of_files_change_nothing(
    files: list[str], inline: XGBEstimator, evaluation: DataConnector
) -> None:
    others = [
        fitted(list(reversed(files)), 1, evaluation, early_stopping_rounds=4),
        fitted(files, 1, evaluation, early_stopping_rounds=4, params={**PARAMS, "nthread": 3}),
    ]
    for other in others:
        assert model_of(other.get_booster()) == model_of(inline.get_booster())


class PerWorkerSketch(XGBTrainer):
    """A deliberate mistake: every worker finds its own bins."""

    def ingest(
        self, context: Any, dataset: str, reader: MatrixReader, reference: LibraryReference, config: XGBConfig
    ) -> ShardMatrix:
        batches = list(reader.batches())
        features = np.concatenate([batch.features for batch in batches])
        own = xgb.QuantileDMatrix(
            features[::7],
            max_bin=config.max_bin,
            feature_names=list(reader.spec.roles.features),
            feature_types=["c" if c.rule == "category" else "q" for c in reader.spec.feature_casts],
            enable_categorical=True,
        )
        return ingest(reader, LibraryReference(own, reference.spec), context.slot.cpus)


class AutomaticBaseScore(XGBTrainer):
    """A deliberate mistake: the library averages its own initial score."""

    def with_profile(self, config: XGBConfig, profile: Any) -> XGBConfig:
        return config


@pytest.mark.parametrize("mutant", [PerWorkerSketch, AutomaticBaseScore])
def test_a_mutated_trainer_is_caught_by_comparing_trees(
    mutant: type[XGBTrainer], files: list[str], tmp_path: Path
) -> None:
    class Mutation:
        @hookimpl
        def shardfit_trainers(self) -> dict[str, Any]:
            return {"xgboost": mutant, "sound": XGBTrainer}

    registry = Registry()
    registry.register(Mutation())

    def model(trainer: str, workers: int) -> tuple[Trees, str]:
        changes: dict[str, Any] = {"trainer": trainer, "stage": str(tmp_path), "registry": registry}
        return model_of(trained(files, workers, **changes).model.booster())

    # An initial score that is off by a rounding error shows at most numbers of workers, not at all of them.
    several = (2, 3, 4, 5)
    assert all(model("sound", workers) == model("sound", 1) for workers in several)
    assert any(model("xgboost", workers) != model("xgboost", 1) for workers in several)

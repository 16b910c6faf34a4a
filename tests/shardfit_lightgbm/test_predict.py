"""Predictions: those of the published booster, one for each row, in order; here, on workers, and in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardfit.connector import DataConnector
from shardfit.errors import ArtifactExistsError, InvalidValueError, UnknownColumnError
from shardfit.prediction import WorkerRequest, predict
from shardfit.registry import default_registry
from shardfit.run import TrainResult
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import CATEGORICAL, FEATURES, write_unevenly
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_lightgbm.training import ROLES, encoded, table, trained

TRAINING, TABLE = table(1_500), table(700, seed=3)


@pytest.fixture(scope="module")
def result() -> TrainResult:
    return trained(TRAINING)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write_unevenly(TABLE, tmp_path / "rows")


def predicted(result: TrainResult, data: object, destination: Path | None = None, **request: Any) -> Any:
    request = {"engine": "inline", **request}
    place = None if destination is None else str(destination)
    data = DataConnector.of(data)
    return predict(result.trainer, result.model, data, default_registry(), WorkerRequest(**request), place)


def test_predictions_are_those_of_the_booster_in_row_order(result: TrainResult, files: list[str]) -> None:
    expected = result.model.booster().predict(encoded(result, TABLE))
    for data in (TABLE, files):
        np.testing.assert_array_equal(predicted(result, data).to_numpy(), expected)


def test_the_published_file_is_a_booster_that_lightgbm_loads_alone(result: TrainResult, tmp_path: Path) -> None:
    run = trained(TRAINING, 2, stage=str(tmp_path))
    content = LocalStore(tmp_path).read(f"model/{run.run_id}", "model.txt")
    (tmp_path / "model.txt").write_bytes(content)
    booster = lgb.Booster(model_file=tmp_path / "model.txt")
    np.testing.assert_array_equal(
        booster.predict(encoded(result, TABLE)), result.model.booster().predict(encoded(result, TABLE))
    )
    assert booster.feature_name() == list(FEATURES)


def test_two_workers_predict_the_same_in_memory_and_in_files(
    result: TrainResult, files: list[str], tmp_path: Path, four_processes: ProcessEngine
) -> None:
    cluster: dict[str, Any] = {"engine": "ray", "workers": 2, "cpus_per_worker": 1}
    expected = predicted(result, files)
    assert predicted(result, files, **cluster).to_pylist() == expected.to_pylist()
    assert predicted(result, files, tmp_path / "out", **cluster) == len(expected)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["part-00000.parquet", "part-00001.parquet"]
    rows = pa.concat_tables([pq.read_table(tmp_path / "out" / name) for name in written])
    assert rows["prediction"].to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_predictions_of_several_classes_are_lists(objective: str, tmp_path: Path) -> None:
    result = trained(TRAINING, roles=replace(ROLES, label=("grade",)), params={"objective": objective, "num_class": 3})
    expected = result.model.booster().predict(encoded(result, TABLE))
    found = predicted(result, TABLE)
    assert found.type == pa.list_(pa.float64(), 3)
    np.testing.assert_array_equal(np.array(found.to_pylist()), expected)
    assert predicted(result, TABLE, tmp_path / "out") == TABLE.num_rows
    assert pq.read_table(tmp_path / "out")["prediction"].to_pylist() == found.to_pylist()


def test_only_the_features_are_needed_in_any_order(result: TrainResult) -> None:
    expected = predicted(result, TABLE).to_pylist()
    assert predicted(result, TABLE.select(["query", *reversed(FEATURES)])).to_pylist() == expected
    with pytest.raises(UnknownColumnError, match="coarse"):
        predicted(result, TABLE.drop_columns(["coarse"]))


def test_categories_that_training_has_not_seen_count_as_missing(result: TrainResult) -> None:
    shops = np.array(TABLE["shop"].to_pylist(), dtype=object)
    new, none = shops.copy(), shops.copy()
    new[::3], none[::3] = "never seen", None
    position = TABLE.schema.get_field_index("shop")
    one, other = (
        predicted(result, TABLE.set_column(position, "shop", pa.array(values, pa.string()))) for values in (new, none)
    )
    assert one.to_pylist() == other.to_pylist() != predicted(result, TABLE).to_pylist()


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_values_beyond_float32_are_refused(result: TrainResult, value: float) -> None:
    values = TABLE["coarse"].to_numpy().copy()
    values[5] = value
    rows = TABLE.set_column(TABLE.schema.get_field_index("coarse"), "coarse", pa.array(values))
    with pytest.raises(InvalidValueError, match="coarse"):
        predicted(result, rows)
    with pytest.raises(InvalidValueError, match="coarse"):
        trained(rows)


def test_no_rows_give_no_predictions(result: TrainResult, tmp_path: Path) -> None:
    assert predicted(result, TABLE.slice(0, 0)).to_pylist() == []
    assert predicted(result, TABLE.slice(0, 0), tmp_path / "out") == 0


def test_two_models_in_turn_predict_their_own(result: TrainResult) -> None:
    other = trained(TRAINING, params={"num_iterations": 2})
    first, second = predicted(result, TABLE).to_pylist(), predicted(other, TABLE).to_pylist()
    assert first != second
    assert predicted(result, TABLE).to_pylist() == first
    assert predicted(other, TABLE).to_pylist() == second


def test_an_estimator_predicts_with_what_it_has_fitted(files: list[str], tmp_path: Path) -> None:
    estimator = LightGBMEstimator(5, scaling_config=LightGBMScalingConfig(1, 1, engine="inline"))
    booster = estimator.fit(TRAINING, FEATURES, "delay", categorical_cols=CATEGORICAL)
    expected = booster.predict(encoded(estimator.result, TABLE))
    np.testing.assert_array_equal(estimator.predict(files).to_numpy(), expected)
    np.testing.assert_array_equal(estimator.predict(TABLE.to_pandas()[list(FEATURES)]).to_numpy(), expected)
    assert estimator.predict_to(files, str(tmp_path / "out")) == TABLE.num_rows
    np.testing.assert_array_equal(pq.read_table(tmp_path / "out")["prediction"].to_numpy(), expected)
    with pytest.raises(ArtifactExistsError):
        estimator.predict_to(files, str(tmp_path / "out"))

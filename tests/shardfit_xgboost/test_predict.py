"""Predictions: as the booster's, in row order, on any number of workers, in memory or in files that are whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardfit.connector import DataConnector
from shardfit.errors import ArtifactExistsError, ShardfitError, UnknownColumnError
from shardfit.events import Event, Progress
from shardfit.prediction import WorkerRequest, predict
from shardfit.registry import default_registry
from shardfit.run import TrainResult
from shardfit.source import DataSource, Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit.testing.tables import CATEGORICAL, FEATURES, write_unevenly
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_xgboost.training import ROLES, plain_matrix, table, trained

TRAINING, TABLE = table(3_000), table(2_500, seed=3)


@pytest.fixture(scope="module")
def result() -> TrainResult:
    return trained(TRAINING)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_unevenly(TABLE, tmp_path_factory.mktemp("predict"))


def predicted(result: TrainResult, data: Any, destination: Path | None = None, **request: Any) -> Any:
    request = {"engine": "inline", **request}
    return predict(
        result.trainer,
        result.model,
        DataConnector.of(data),
        default_registry(),
        WorkerRequest(**request),
        None if destination is None else str(destination),
    )


def test_predictions_are_those_of_the_booster_in_row_order(result: TrainResult, files: list[str]) -> None:
    expected = result.model.booster().predict(plain_matrix(result, TABLE))
    for data in (TABLE, files):
        found = predicted(result, data)
        assert isinstance(found, pa.ChunkedArray)
        assert found.type == pa.float32()
        np.testing.assert_array_equal(found.to_numpy(), expected)


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
    assert rows.column_names == ["prediction"]
    assert rows["prediction"].to_pylist() == expected.to_pylist()


def test_predictions_of_several_outputs_are_lists(tmp_path: Path) -> None:
    softprob = {"params": {"objective": "multi:softprob", "num_class": 3}, "roles": replace(ROLES, label=("grade",))}
    labels = {"roles": replace(ROLES, label=("delay", "amount"))}
    for options, outputs in ((softprob, 3), (labels, 2)):
        result = trained(TRAINING, **options)
        expected = result.model.booster().predict(plain_matrix(result, TABLE))
        found = predicted(result, TABLE)
        assert found.type == pa.list_(pa.float32(), outputs)
        np.testing.assert_array_equal(np.array(found.to_pylist(), dtype=np.float32), expected)
        assert predicted(result, TABLE, tmp_path / str(outputs)) == TABLE.num_rows
        rows = pq.read_table(tmp_path / str(outputs) / "part-00000.parquet")["prediction"]
        assert rows.to_pylist() == found.to_pylist()


def test_the_most_likely_class_is_a_number() -> None:
    options = {"params": {"objective": "multi:softmax", "num_class": 3}, "roles": replace(ROLES, label=("grade",))}
    result = trained(TRAINING, **options)
    found = predicted(result, TABLE).to_numpy()
    np.testing.assert_array_equal(found, result.model.booster().predict(plain_matrix(result, TABLE)))
    assert set(found.tolist()) <= {0.0, 1.0, 2.0}


def test_rounds_after_the_best_one_are_not_used() -> None:
    params = {"learning_rate": 1.0, "early_stopping_rounds": 3, "n_estimators": 60, "max_depth": 6}
    result = trained(TRAINING, params=params, evals={"held": TABLE})
    booster = result.model.booster()
    assert booster.num_boosted_rounds() == booster.best_iteration + 4
    data = plain_matrix(result, TABLE)
    found = predicted(result, TABLE).to_numpy()
    np.testing.assert_array_equal(found, booster.predict(data, iteration_range=(0, booster.best_iteration + 1)))
    assert (found != booster.predict(data)).any()


def test_only_the_features_are_needed_in_any_order_and_others_do_not_matter(result: TrainResult) -> None:
    expected = predicted(result, TABLE).to_pylist()
    assert predicted(result, TABLE.select(FEATURES)).to_pylist() == expected
    shuffled = TABLE.select(["query", *reversed(FEATURES)])
    assert predicted(result, shuffled).to_pylist() == expected


def test_a_feature_that_is_not_there_is_named(result: TrainResult) -> None:
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
    assert one.to_pylist() == other.to_pylist()
    assert one.to_pylist() != predicted(result, TABLE).to_pylist()


def test_categories_come_in_whatever_dictionaries(result: TrainResult) -> None:
    position = TABLE.schema.get_field_index("shop")
    encoded = TABLE.set_column(position, "shop", TABLE["shop"].combine_chunks().dictionary_encode())
    assert predicted(result, encoded).to_pylist() == predicted(result, TABLE).to_pylist()


def test_a_value_that_stands_for_missing_does_so_in_prediction_too() -> None:
    roles = replace(ROLES, features=("marked", *FEATURES[1:]))
    result = trained(TRAINING, roles=roles, params={"missing": -999.0})
    nulls = TABLE.set_column(TABLE.schema.get_field_index("marked"), "marked", TABLE["drift"])
    assert predicted(result, TABLE).to_pylist() == predicted(result, nulls).to_pylist()


def test_no_rows_give_no_predictions(result: TrainResult, tmp_path: Path) -> None:
    assert predicted(result, TABLE.slice(0, 0)).to_pylist() == []
    assert predicted(result, TABLE.slice(0, 0), tmp_path / "out") == 0


def test_progress_is_told(result: TrainResult) -> None:
    heard: list[Event] = []
    data, request = DataConnector.of(TABLE), WorkerRequest(engine="inline")
    predict(result.trainer, result.model, data, default_registry(), request, observers=[heard.append])
    told = [event for event in heard if isinstance(event, Progress)]
    assert (told[-1].phase, told[-1].done, told[-1].total) == ("predict", TABLE.num_rows, TABLE.num_rows)


def test_a_destination_that_is_not_empty_is_refused_and_left_as_it_is(result: TrainResult, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ArtifactExistsError, match=r"mine\.txt"):
        predicted(result, TABLE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_destination_will_do_and_a_second_time_is_refused(result: TrainResult, tmp_path: Path) -> None:
    assert predicted(result, TABLE, tmp_path) == TABLE.num_rows
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]
    with pytest.raises(ArtifactExistsError):
        predicted(result, TABLE, tmp_path)


class BreakingSource(DataSource):
    """Breaks in its last fragment."""

    def __init__(self) -> None:
        self._inner = ArrowSource(TABLE, fragment_rows=500)

    def schema(self) -> pa.Schema:
        return self._inner.schema()

    def fragments(self) -> Sequence[Fragment]:
        return self._inner.fragments()

    def describe(self) -> str:
        return "a breaking source"

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        if fragment.index == 4:
            raise OSError("the disk is gone")
        yield from self._inner.read(fragment, columns, start, stop, batch_rows)


def test_a_failure_leaves_nothing_behind(result: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(ShardfitError, match="the disk is gone"):
        predicted(result, BreakingSource(), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert predicted(result, TABLE, tmp_path / "out") == TABLE.num_rows


def test_an_estimator_predicts_with_what_it_has_fitted(files: list[str], tmp_path: Path) -> None:
    estimator = XGBEstimator(5, scaling_config=XGBScalingConfig(1, engine="inline"))
    booster = estimator.fit(TRAINING, FEATURES, "delay", categorical_cols=CATEGORICAL)
    expected = booster.predict(plain_matrix(estimator.result, TABLE))
    np.testing.assert_array_equal(estimator.predict(files).to_numpy(), expected)
    np.testing.assert_array_equal(estimator.predict(TABLE.to_pandas()[list(FEATURES)]).to_numpy(), expected)
    assert estimator.predict_to(files, str(tmp_path / "out")) == TABLE.num_rows
    rows = pq.read_table(tmp_path / "out")["prediction"]
    np.testing.assert_array_equal(rows.to_numpy(), expected)

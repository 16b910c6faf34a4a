"""Sparse features with XGBoost: the model of plain xgboost on the same CSR matrix, at any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from scipy.sparse import csr_matrix, random_array
from sklearn.datasets import dump_svmlight_file

from shardfit.connector import DataConnector
from shardfit.errors import CoverageError, InvalidArgumentError, InvalidValueError, UnsupportedTypeError
from shardfit.sparse import SPARSE, with_features
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from shardfit_xgboost.sparse_stream import SparseStream
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_xgboost.training import model_of

ROWS, FEATURES = 4_000, 200
PARAMS = {"max_depth": 4, "learning_rate": 0.3, "eval_metric": ["logloss", "auc"]}

Array = npt.NDArray[Any]


def matrix(rows: int, seed: int, few: bool = False) -> tuple[csr_matrix, Array]:
    """Return sparse features, of few different values, zeros among them, or of many, and labels that follow."""
    random = np.random.default_rng(seed)
    features = csr_matrix(random_array((rows, FEATURES), density=0.03, rng=random, dtype=np.float32))
    features.data = np.floor(features.data * 9) if few else np.exp(features.data * 9).astype(np.float32)
    signal = features @ np.random.default_rng(7).normal(size=FEATURES)
    labels = signal + random.normal(size=rows) * np.std(signal) / 2 > np.median(signal)
    return features, labels.astype(np.float32)


def column_of(features: csr_matrix) -> pa.Array:
    entries = pa.StructArray.from_arrays(
        [pa.array(features.indices, pa.int32()), pa.array(features.data)], fields=list(SPARSE.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(features.indptr, pa.int32()), entries, type=SPARSE)


def table_of(features: csr_matrix, labels: Array, **more: Any) -> pa.Table:
    table = pa.table({"label": labels, "features": column_of(features), **more})
    wide = with_features(table.schema.field("features"), features.shape[1])
    return table.cast(table.schema.set(1, wide))


def fitted(data: object, workers: int = 1, fit: dict[str, Any] | None = None, **changes: Any) -> XGBEstimator:
    arguments = {"n_estimators": 10, "objective": "binary:logistic", "params": PARAMS, **changes}
    engine = arguments.pop("engine", "inline")
    estimator = XGBEstimator(scaling_config=XGBScalingConfig(workers, 1, engine=engine), **arguments)
    estimator.fit(data, input_cols=["features"], label_col="label", **(fit or {}))
    return estimator


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svm")
    features, labels = matrix(ROWS, 0)
    order = np.argsort(labels, kind="stable")
    features, labels = features[order], labels[order]
    for i, (start, stop) in enumerate([(0, 100), (100, 3_000), (3_000, ROWS)]):
        dump_svmlight_file(features[start:stop], labels[start:stop], str(folder / f"{i}.svm"), zero_based=False)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> DataConnector:
    path = tmp_path_factory.mktemp("svm") / "test.svm"
    features, labels = matrix(1_500, 1)
    dump_svmlight_file(features[:, : FEATURES - 20], labels, str(path), zero_based=False)
    return DataConnector.from_svmlight(path)


def train_files(files: Path) -> DataConnector:
    data = DataConnector.from_svmlight(files, features=FEATURES)
    return DataConnector(data.data, data.source, {**data.options, "block_bytes": 100_000})


@pytest.fixture(scope="module")
def inline(files: Path, evaluation: DataConnector) -> XGBEstimator:
    return fitted(train_files(files), fit={"eval_set": evaluation}, early_stopping_rounds=4)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_worker_processes_grow_the_same_trees_as_inline(
    inline: XGBEstimator, files: Path, evaluation: DataConnector, workers: int, four_processes: ProcessEngine
) -> None:
    changes = {"fit": {"eval_set": evaluation}, "early_stopping_rounds": 4}
    other = fitted(train_files(files), workers, engine="ray", **changes)
    assert len(four_processes.pids) == other.result.plan.layout.workers == workers
    assert other.get_booster().save_raw("json") == inline.get_booster().save_raw("json")
    assert other.get_eval_results() == inline.get_eval_results()
    assert all(coverage.exact for coverage in other.result.coverage.values())
    assert other.predict(evaluation).equals(inline.predict(evaluation))


def test_arrow_lists_in_memory_and_in_parquet_give_the_same_model(
    inline: XGBEstimator, files: Path, evaluation: DataConnector, tmp_path: Path
) -> None:
    table = train_files(files).to_arrow()
    pq.write_table(table.cast(table.schema.remove_metadata()), tmp_path / "a.parquet", row_group_size=777)
    for data in (table, str(tmp_path / "a.parquet")):
        other = fitted(data, fit={"eval_set": evaluation}, early_stopping_rounds=4)
        assert model_of(other.get_booster()) == model_of(inline.get_booster())


@pytest.mark.parametrize("few", [True, False])
def test_the_model_is_as_good_as_that_of_plain_xgboost(few: bool) -> None:
    features, labels = matrix(ROWS, 0, few)
    held_out, truth = matrix(1_500, 1, few)
    ours = fitted(table_of(features, labels), fit={"eval_set": DataConnector.of(table_of(held_out, truth))})
    params = {**PARAMS, "objective": "binary:logistic", "base_score": float(labels.mean())}
    found: dict[str, Any] = {}
    plain = xgb.train(
        params,
        xgb.QuantileDMatrix(features, labels),
        10,
        evals=[(xgb.DMatrix(held_out, truth), "eval")],
        evals_result=found,
        verbose_eval=False,
    )
    for metric, values in ours.get_eval_results()["eval"].items():
        assert values[-1] == pytest.approx(found["eval"][metric][-1], abs=0.01)
    if few:
        assert model_of(ours.get_booster())[0] == model_of(plain)[0]


def test_predictions_on_the_training_matrix_equal_those_on_a_plain_one(tmp_path: Path) -> None:
    features, labels = matrix(ROWS, 3)
    # A value far beyond the others, in one row, and features of a single value.
    features.data[11] = 1e30
    features.data[features.indices == 5] = -2
    table = table_of(features, labels)
    estimator = fitted(table, fit={"eval_set": {"again": DataConnector.of(table)}}, params={**PARAMS, "max_bin": 16})
    booster = estimator.get_booster()
    expected = booster.predict(xgb.DMatrix(features))
    np.testing.assert_array_equal(estimator.predict(table).to_numpy(), expected)
    assert estimator.predict_to(table, str(tmp_path / "out")) == ROWS
    np.testing.assert_array_equal(pq.read_table(tmp_path / "out").column(0).to_numpy(), expected)
    np.testing.assert_array_equal(estimator.to_sklearn().predict_proba(features)[:, 1], expected)
    matched = xgb.train(
        {"objective": "binary:logistic", "eval_metric": "logloss"}, xgb.DMatrix(features, labels), 0, xgb_model=booster,
        evals=[(xgb.DMatrix(features, labels), "e")], verbose_eval=False,
    )  # fmt: skip
    loss = float(matched.eval(xgb.DMatrix(features, labels)).rpartition(":")[2])
    assert estimator.get_eval_results()["again"]["logloss"][-1] == pytest.approx(loss, abs=1e-5)


def test_a_zero_that_is_named_is_a_zero_unless_it_counts_as_missing() -> None:
    features, labels = matrix(ROWS, 0, few=True)
    assert (features.data == 0).any()
    table = table_of(features, labels)
    without = features.copy()
    without.eliminate_zeros()
    zeros, lacking = fitted(table), fitted(table, params={**PARAMS, "missing": 0.0})
    assert model_of(lacking.get_booster()) == model_of(fitted(table_of(without, labels)).get_booster())
    assert model_of(lacking.get_booster()) != model_of(zeros.get_booster())
    np.testing.assert_array_equal(
        lacking.predict(table).to_numpy(), lacking.get_booster().predict(xgb.DMatrix(without))
    )


def test_queries_and_weights_work_with_sparse_features(tmp_path: Path, four_processes: ProcessEngine) -> None:
    features, labels = matrix(1_000, 0)
    queries = np.repeat(np.arange(50), 20)
    dump_svmlight_file(features, labels, str(tmp_path / "a.svm"), zero_based=False, query_id=queries)
    data = DataConnector.from_svmlight(tmp_path, features=FEATURES)
    changes = {"objective": "rank:ndcg", "params": {"max_depth": 3}, "fit": {"group_col": "qid"}}
    one, three = fitted(data, **changes), fitted(data, 3, engine="ray", **changes)
    assert model_of(one.get_booster()) == model_of(three.get_booster())
    weighted = table_of(features, labels, weight=np.random.default_rng(0).random(1_000, dtype=np.float32))
    both = [fitted(weighted, n, engine="ray", fit={"weight_col": "weight"}) for n in (1, 2)]
    assert model_of(both[0].get_booster()) == model_of(both[1].get_booster())


def test_many_features_are_never_made_dense(four_processes: ProcessEngine) -> None:
    # Made dense, one worker's half would take 2 GB.
    rows, features = 20_000, 50_000
    random = np.random.default_rng(0)
    indices = np.sort(random.integers(0, features, (rows, 4)), axis=1)
    entries = csr_matrix(
        (np.ones(4 * rows, np.float32), indices.ravel(), np.arange(0, 4 * rows + 1, 4)), (rows, features)
    )
    entries.sum_duplicates()
    labels = random.integers(0, 2, rows).astype(np.float32)
    estimator = fitted(table_of(entries, labels), 2, engine="ray", n_estimators=1, params={"max_depth": 2})
    assert estimator.result.plan.casts[0].features == features
    assert max(estimator.result.peak_memory.values()) < 2**30


def test_training_can_go_on_from_a_sparse_model(tmp_path: Path) -> None:
    table = table_of(*matrix(1_000, 0))
    stage = {"artifact_stage_location": str(tmp_path / "stage")}
    first = fitted(table, n_estimators=4, **stage)
    on = fitted(table, fit={"resume_from": first.result.run_id}, **stage)
    assert on.get_booster().save_raw("json") == fitted(table).get_booster().save_raw("json")


@pytest.mark.parametrize("features", [FEATURES - 1, FEATURES + 1])
def test_a_run_goes_on_with_as_many_features_only(features: int, tmp_path: Path) -> None:
    stage = {"artifact_stage_location": str(tmp_path / "stage")}
    table = table_of(*matrix(100, 0))
    first = fitted(table, n_estimators=1, **stage)
    entries = pa.array([[(0, 1.0)], [(features - 1, 1.0)]], SPARSE)
    other = pa.table({"label": [0.0, 1.0], "features": entries})
    with pytest.raises(
        InvalidArgumentError, match=rf"resuming with {features} sparse features: the checkpoint has 200"
    ):
        fitted(other, fit={"resume_from": first.result.run_id}, **stage)


def test_constraints_are_checked_against_the_number_of_features() -> None:
    table = table_of(*matrix(1_000, 0))
    up = fitted(table, params={**PARAMS, "monotone_constraints": "(" + ",".join(["1"] * FEATURES) + ")"})
    assert len(up.get_booster().get_dump()) == 10


def test_bad_values_are_named_where_they_stand() -> None:
    features, labels = matrix(100, 0)
    features.data[features.indptr[7]] = np.inf
    with pytest.raises(InvalidValueError, match=r"'features' of dataset 'train': found an infinite value .* row 7"):
        fitted(table_of(features, labels))
    unsorted = pa.table({"label": [0.0, 1.0], "features": pa.array([[(0, 1.0)], [(2, 1.0), (1, 1.0)]], SPARSE)})
    with pytest.raises(InvalidValueError, match="found the index 1 after 2 in row 1 of a batch that begins with row 0"):
        fitted(unsorted)


def test_predicting_from_other_data_is_refused() -> None:
    features, labels = matrix(100, 0)
    estimator = fitted(table_of(features, labels))
    wide = pa.table({"features": pa.array([[(FEATURES, 1.0)]], SPARSE)})
    with pytest.raises(InvalidValueError, match=f"found the index {FEATURES} of {FEATURES} features"):
        estimator.predict(wide)
    with pytest.raises(UnsupportedTypeError, match="Use a list of structs"):
        estimator.predict(pa.table({"features": [1.0]}))


def test_a_library_that_lost_a_value_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = SparseStream._keep

    def lose(self: SparseStream, batch: Any) -> None:
        keep(self, batch)
        self.values += 1

    monkeypatch.setattr(SparseStream, "_keep", lose)
    with pytest.raises(CoverageError, match="values"):
        fitted(table_of(*matrix(100, 0)))

"""P6: values that cannot be trained on are named in the profile pass, before any matrix is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb

from shardfit.connector import DataConnector
from shardfit.errors import BrokenGroupError, InvalidValueError, ShardfitError
from shardfit.testing.tables import FEATURES, awkward_table
from tests.end_to_end.fitting import Failure, failure, fitted, with_values

TABLE = awkward_table(400)
ROWS = TABLE.num_rows
ROW = 321


@pytest.fixture
def no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no matrix of rows be made in this process."""

    def make(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a matrix was made")

    monkeypatch.setattr(xgb.QuantileDMatrix, "__init__", make)


def rejected(
    data: object, stage: Path, *parts: str, kind: type[ShardfitError] = InvalidValueError, **more: Any
) -> Failure:
    """Check that training on `data` fails in the profile pass, in words that hold `parts`."""
    left = failure(data, stage, kind, **more)
    assert "PlanMade" in left.seen
    assert left.phases <= {"profile"}
    assert "profile" in left.record.phases
    assert "train" not in left.record.phases
    assert left.record.status == "failed"
    assert isinstance(left.error, ShardfitError)
    assert left.error.advice
    for part in parts:
        assert part in left.message
    return left


def with_value(column: str, value: object, table: pa.Table = TABLE) -> DataConnector:
    """Return the table with another value in row 321."""
    values = table[column].to_pylist()
    values[ROW] = value
    return with_values(table, column, values, None if isinstance(value, float) else table[column].type)


NAN, INFINITY = float("nan"), float("inf")


CLASSES = [
    ("binary:logistic", -1.0, "between 0 and 1"),
    ("binary:logitraw", 2.0, "between 0 and 1"),
    ("binary:hinge", 2.0, "between 0 and 1"),
    ("reg:logistic", 1.5, "between 0 and 1"),
    ("multi:softprob", 3.0, "0, 1, ... 2"),
    ("multi:softmax", -1.0, "0, 1, ... 2"),
    ("multi:softprob", 0.5, "0, 1, ... 2"),
    ("rank:ndcg", -1.0, "from 0 to 31"),
    ("rank:ndcg", 40.0, "ndcg_exp_gain"),
    ("rank:ndcg", 0.5, "ndcg_exp_gain"),
    ("rank:map", 2.0, "0 and 1"),
]
NUMBERS = [
    ("count:poisson", -1.0, "0 or more"),
    ("reg:tweedie", -1.0, "0 or more"),
    ("reg:gamma", 0.0, "more than 0"),
    ("reg:squaredlogerror", -1.0, "more than -1"),
    ("reg:squaredlogerror", -2.0, "more than -1"),
]


def arguments_for(objective: str) -> dict[str, Any]:
    params = {"num_class": 3} if objective.startswith("multi") else {}
    columns = {"group_col": "query"} if objective.startswith("rank") else {}
    return {"objective": objective, "params": params, "columns": columns}


@pytest.mark.usefixtures("no_matrix")
class TestRejected:
    @pytest.mark.parametrize("where", ["train", "holdout"])
    @pytest.mark.parametrize(
        ("value", "shown"),
        [(None, "null or NaN"), (NAN, "null or NaN"), (INFINITY, "inf"), (-INFINITY, "-inf")],
        ids=["null", "nan", "infinity", "minus infinity"],
    )
    def test_a_label_that_is_no_number(self, tmp_path: Path, value: object, shown: str, where: str) -> None:
        bad, good = with_value("late", value), DataConnector.from_arrow(TABLE)
        data, evals = (bad, None) if where == "train" else (good, {"holdout": bad})
        rejected(data, tmp_path, "'late'", shown, f"row {ROW}", repr(where), evals=evals)

    def test_a_bad_row_of_a_file_is_named_with_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "part-0.parquet"
        pq.write_table(with_value("late", None).to_arrow(), path, row_group_size=100)
        data = DataConnector.from_parquet(str(path))
        rejected(data, tmp_path / "stage", str(path), "fragment 3", f"row {ROW}")

    @pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob"])
    def test_labels_of_one_class(self, tmp_path: Path, objective: str) -> None:
        params = {"num_class": 2} if objective.startswith("multi") else {}
        data = with_values(TABLE, "late", [1.0] * ROWS)
        rejected(data, tmp_path, objective, "one class", "1.0", objective=objective, params=params)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(INFINITY, "infinite"), (-INFINITY, "infinite"), (1e300, "infinite")],
        ids=["infinity", "minus infinity", "beyond float32"],
    )
    @pytest.mark.parametrize("where", ["train", "holdout"])
    def test_an_infinite_feature(self, tmp_path: Path, value: float, shown: str, where: str) -> None:
        bad, good = with_value("normal", value), DataConnector.from_arrow(TABLE)
        data, evals = (bad, None) if where == "train" else (good, {"holdout": bad})
        rejected(data, tmp_path, "'normal'", shown, f"row {ROW}", repr(where), evals=evals)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(-0.5, "-0.5"), (None, "null or NaN"), (NAN, "null or NaN"), (INFINITY, "inf")],
        ids=["negative", "null", "nan", "infinity"],
    )
    def test_a_weight_that_weighs_nothing_sensible(self, tmp_path: Path, value: object, shown: str) -> None:
        columns = {"weight_col": "weight"}
        rejected(with_value("weight", value), tmp_path, "'weight'", shown, f"row {ROW}", columns=columns)

    @pytest.mark.parametrize("where", ["train", "holdout"])
    def test_weights_that_sum_to_zero(self, tmp_path: Path, where: str) -> None:
        bad, good = with_values(TABLE, "weight", [0.0] * ROWS), DataConnector.from_arrow(TABLE)
        data, evals = (bad, None) if where == "train" else (good, {"holdout": bad})
        rejected(data, tmp_path, "'weight'", "sum", repr(where), evals=evals, columns={"weight_col": "weight"})

    def test_a_base_margin_that_is_no_number(self, tmp_path: Path) -> None:
        columns = {"base_margin_col": "margin"}
        data = with_value("margin", NAN, TABLE.append_column("margin", TABLE["delay"]))
        rejected(data, tmp_path, "'margin'", "null or NaN", f"row {ROW}", columns=columns)

    @pytest.mark.parametrize(("objective", "value", "advice"), [*CLASSES, *NUMBERS])
    def test_a_label_that_the_objective_can_not_have(
        self, tmp_path: Path, objective: str, value: float, advice: str
    ) -> None:
        good = with_values(TABLE, "late", TABLE["late"].to_numpy() + (objective == "reg:gamma"))
        bad = with_value("late", value, good.to_arrow())
        more = arguments_for(objective)
        rejected(bad, tmp_path, f"'{objective}'", repr(value), advice, "'train'", **more)

    @pytest.mark.parametrize(("objective", "value", "advice"), CLASSES)
    def test_a_label_of_an_evaluation_set_that_is_no_class(
        self, tmp_path: Path, objective: str, value: float, advice: str
    ) -> None:
        evals = {"good": DataConnector.from_arrow(TABLE), "holdout": with_value("late", value)}
        more = arguments_for(objective)
        parts = (f"'{objective}'", repr(value), advice, "'holdout'")
        rejected(DataConnector.from_arrow(TABLE), tmp_path, *parts, evals=evals, **more)

    def test_a_category_that_is_no_whole_number(self, tmp_path: Path) -> None:
        columns = {"categorical_cols": ("coarse", "shop")}
        rejected(with_value("coarse", 1.5), tmp_path, "'coarse'", "1.5", columns=columns)


@pytest.mark.usefixtures("no_matrix")
@pytest.mark.parametrize("where", ["train", "holdout"])
def test_a_group_in_two_places_is_named_with_both(tmp_path: Path, where: str) -> None:
    groups = np.arange(ROWS) // 10
    groups[ROW] = 7
    bad, good = with_values(TABLE, "query", groups), DataConnector.from_arrow(TABLE)
    data, evals = (bad, None) if where == "train" else (good, {"holdout": bad})
    columns = {"group_col": "query"}
    left = failure(data, tmp_path, BrokenGroupError, objective="rank:ndcg", columns=columns, evals=evals)
    for part in ["'query'", "7", "70", str(ROW), repr(where)]:
        assert part in left.message
    assert not left.phases


def test_whole_numbers_that_float32_rounds_are_warned_about(tmp_path: Path) -> None:
    data = with_values(TABLE, "identifier", np.arange(ROWS) + 2**24 - ROWS // 2)
    columns = {"input_cols": ("identifier", "drift"), "categorical_cols": ()}
    result = fitted(data, stage=tmp_path, columns=columns).result
    (warning,) = [text for text in result.warnings if "identifier" in text]
    assert "16,777,216" in warning


def test_whole_numbers_that_float32_holds_are_not_warned_about(tmp_path: Path) -> None:
    data = with_values(TABLE, "identifier", np.arange(ROWS) + 2**24 - ROWS)
    columns = {"input_cols": ("identifier", "drift"), "categorical_cols": ()}
    assert not fitted(data, stage=tmp_path, columns=columns).result.warnings


def test_dictionaries_in_another_order_in_each_file_train_like_plain_text(tmp_path: Path) -> None:
    plain, encoded = tmp_path / "plain", tmp_path / "encoded"
    for folder in (plain, encoded):
        folder.mkdir()
    orders = (["b", "a", "z-late", "c"], ["c", "z-late", "unused", "a", "b"])
    for number, order in enumerate(orders):
        part = TABLE.slice(number * ROWS // 2, ROWS // 2)
        pq.write_table(part, plain / f"part-{number}.parquet")
        codes = pa.array([order.index(value) for value in part["shop"].to_pylist()], pa.int8())
        shop = pa.DictionaryArray.from_arrays(codes, pa.array(order))
        pq.write_table(part.set_column(4, "shop", shop), encoded / f"part-{number}.parquet")
    assert pa.types.is_dictionary(pq.read_schema(encoded / "part-0.parquet").field("shop").type)
    models = [
        fitted(DataConnector.from_parquet(str(folder)), stage=tmp_path / "stage", rounds=5).result.model
        for folder in (plain, encoded)
    ]
    trees = [json.loads(model.booster().save_raw("json"))["learner"] for model in models]
    assert trees[0] == trees[1]
    assert models[0].spec.categories == models[1].spec.categories
    assert "unused" not in models[0].spec.categories["shop"].values
    assert set(FEATURES) == set(models[0].spec.roles.features)

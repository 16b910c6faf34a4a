"""P6: what can be known to be wrong before a worker starts is said before a worker starts, by name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardfit.connector import DataConnector
from shardfit.engines.inline import InlineEngine
from shardfit.errors import (
    ArtifactError,
    DataError,
    EmptyDataError,
    InfeasibleRequestError,
    InvalidArgumentError,
    SchemaMismatchError,
    ShardfitError,
    SourceNotFoundError,
    UnknownColumnError,
    UnreadableSourceError,
    UnsupportedTypeError,
)
from shardfit.testing.tables import FEATURES, awkward_table
from tests.end_to_end.fitting import Failure, failure, fitted, with_values

TABLE = awkward_table(400)
ROWS = TABLE.num_rows


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker start, in this process or on a cluster."""
    from shardfit.engines.ray import RayEngine

    def start(*arguments: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(InlineEngine, "start", start)
    monkeypatch.setattr(RayEngine, "start", start)


def refused(data: object, stage: Path, kind: type[ShardfitError], *parts: str, **arguments: Any) -> Failure:
    """Check that training on `data` is refused before a plan is made, in words that hold `parts`."""
    left = failure(data, stage, kind, **arguments)
    assert left.seen == {"RunStarted", "RunEnded"}
    assert left.record.status == "failed"
    assert isinstance(left.error, ShardfitError)
    assert left.error.advice
    for part in parts:
        assert part in left.message
    return left


pytestmark = pytest.mark.usefixtures("no_worker")


# Files.


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing.parquet")
    refused(DataConnector.from_parquet(path), tmp_path / "stage", SourceNotFoundError, path)


def test_a_pattern_that_matches_no_file_is_named(tmp_path: Path) -> None:
    pattern = str(tmp_path / "part-*.parquet")
    refused(DataConnector.from_parquet(pattern), tmp_path / "stage", SourceNotFoundError, pattern)


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Act as a user without root's rights meanwhile; yields a folder of that user's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    user, nobody = os.geteuid(), 65534
    if user == 0:
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users and rights as Unix has them")
def test_a_file_without_permission_to_read_it_is_named(ordinary_user: Path) -> None:
    path = ordinary_user / "secret.parquet"
    pq.write_table(TABLE, path)
    path.chmod(0)
    refused(DataConnector.from_parquet(str(path)), ordinary_user / "stage", UnreadableSourceError, str(path), "ermi")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1", None], ids=repr)
def test_a_corrupt_footer_is_named_by_file(tmp_path: Path, content: bytes | None) -> None:
    good, bad = tmp_path / "part-0.parquet", tmp_path / "part-1.parquet"
    pq.write_table(TABLE, good)
    whole = good.read_bytes()
    bad.write_bytes(whole[:-20] if content is None else content)
    data = DataConnector.from_parquet([str(good), str(bad)])
    left = refused(data, tmp_path / "stage", UnreadableSourceError, str(bad), "footer")
    assert str(good) not in left.message


@pytest.mark.parametrize("where", ["train", "eval"])
def test_a_dataset_without_rows_is_named(tmp_path: Path, where: str) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(TABLE.slice(0, 0), path)
    empty, full = DataConnector.from_parquet(str(path)), DataConnector.from_arrow(TABLE)
    data, evals = (empty, None) if where == "train" else (full, {"eval": empty})
    refused(data, tmp_path / "stage", EmptyDataError, repr(where), str(path), evals=evals)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda table: table.drop_columns(["rare"]), ["'rare'", "does not have it"]),
        (lambda table: table.append_column("extra", table["rare"]), ["'extra'", "has it"]),
        (lambda table: table.set_column(3, "rare", table["rare"].cast("float32")), ["'rare'", "float", "double"]),
    ],
    ids=["a column less", "a column more", "another type"],
)
def test_files_that_disagree_are_named_with_the_column(tmp_path: Path, change: Any, parts: list[str]) -> None:
    first, second = tmp_path / "part-0.parquet", tmp_path / "part-1.parquet"
    pq.write_table(TABLE, first)
    pq.write_table(change(TABLE), second)
    data = DataConnector.from_parquet(str(tmp_path / "part-*.parquet"))
    refused(data, tmp_path / "stage", SchemaMismatchError, str(first), str(second), *parts)


# Columns.


@pytest.mark.parametrize(
    "columns",
    [
        {"input_cols": ("drift", "coarze")},
        {"label_col": "coarze"},
        {"weight_col": "coarze"},
        {"group_col": "coarze"},
        {"base_margin_col": "coarze"},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_an_unknown_column_is_named_with_the_nearest_one(tmp_path: Path, columns: dict[str, Any]) -> None:
    given = {"categorical_cols": (), "input_cols": ("drift", "normal"), **columns}
    refused(DataConnector.from_arrow(TABLE), tmp_path, UnknownColumnError, "'coarze'", "'coarse'", columns=given)


def test_a_categorical_column_that_is_no_feature_is_named(tmp_path: Path) -> None:
    columns = {"input_cols": ("drift",), "categorical_cols": ("shop",)}
    refused(DataConnector.from_arrow(TABLE), tmp_path, UnknownColumnError, "'shop'", "input_cols", columns=columns)


def test_a_feature_named_twice_is_named(tmp_path: Path) -> None:
    columns = {"input_cols": ("drift", "normal", "drift"), "categorical_cols": ()}
    refused(DataConnector.from_arrow(TABLE), tmp_path, UnknownColumnError, "'drift'", "twice", columns=columns)


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_two_columns_of_one_name_are_named(tmp_path: Path, storage: str) -> None:
    twice = TABLE.append_column("drift", TABLE["normal"])
    data = DataConnector.from_arrow(twice)
    if storage == "file":
        pq.write_table(twice, tmp_path / "twice.parquet")
        data = DataConnector.from_parquet(str(tmp_path / "twice.parquet"))
    refused(data, tmp_path / "stage", UnknownColumnError, "'drift'", "2 columns")


def test_a_feature_that_is_also_the_label_is_named(tmp_path: Path) -> None:
    columns = {"input_cols": (*FEATURES, "late")}
    refused(DataConnector.from_arrow(TABLE), tmp_path, UnknownColumnError, "'late'", "label", columns=columns)


def test_a_missing_label_column_is_asked_for(tmp_path: Path) -> None:
    refused(DataConnector.from_arrow(TABLE), tmp_path, InvalidArgumentError, "label_col", columns={"label_col": None})


def test_ranking_without_groups_is_refused(tmp_path: Path) -> None:
    refused(DataConnector.from_arrow(TABLE), tmp_path, InvalidArgumentError, "group_col", objective="rank:ndcg")


def test_text_that_is_not_declared_categorical_is_named(tmp_path: Path) -> None:
    columns = {"categorical_cols": ("kind",)}
    refused(
        DataConnector.from_arrow(TABLE), tmp_path, UnsupportedTypeError, "'shop'", "categorical_cols", columns=columns
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1.0, 2.0], pa.list_(pa.float64())),
        ({"a": 1}, pa.struct({"a": pa.int64()})),
        (b"bytes", pa.binary()),
        ([("a", 1)], pa.map_(pa.string(), pa.int64())),
    ],
    ids=["list", "struct", "binary", "map"],
)
@pytest.mark.parametrize("role", ["input_cols", "categorical_cols", "label_col", "weight_col", "group_col"])
def test_an_unsupported_type_is_named_with_its_column(
    tmp_path: Path, value: object, kind: pa.DataType, role: str
) -> None:
    data = with_values(TABLE, "odd", [value] * ROWS, kind)
    columns: dict[str, Any] = {role: "odd"}
    if role in {"input_cols", "categorical_cols"}:
        columns = {"input_cols": ("drift", "odd"), "categorical_cols": ("odd",) if role == "categorical_cols" else ()}
    refused(data, tmp_path, UnsupportedTypeError, "'odd'", str(kind), columns=columns)


@pytest.mark.parametrize(
    ("change", "kind", "parts"),
    [
        (lambda table: table.drop_columns(["normal"]), UnknownColumnError, ["'normal'"]),
        (lambda table: table.drop_columns(["late"]), UnknownColumnError, ["'late'"]),
        (
            lambda table: table.set_column(2, "normal", pa.array(["text"] * ROWS)),
            UnsupportedTypeError,
            ["'normal'"],
        ),
        (
            lambda table: table.set_column(2, "normal", pa.array([date(2020, 1, 1)] * ROWS)),
            SchemaMismatchError,
            ["'normal'", "date32[day]", "double"],
        ),
        (
            lambda table: table.set_column(4, "shop", pa.array([1] * ROWS)),
            SchemaMismatchError,
            ["'shop'", "int64", "string"],
        ),
        (
            lambda table: table.set_column(5, "kind", pa.array(["10"] * ROWS)),
            SchemaMismatchError,
            ["'kind'", "int64", "string"],
        ),
    ],
    ids=["no feature", "no label", "text", "a date", "numbers for text", "text for numbers"],
)
def test_an_evaluation_set_that_does_not_fit_is_named(
    tmp_path: Path, change: Any, kind: type[DataError], parts: list[str]
) -> None:
    evals = {"holdout": DataConnector.from_arrow(change(TABLE))}
    refused(DataConnector.from_arrow(TABLE), tmp_path, kind, "'holdout'", *parts, evals=evals)


# The cluster.


def test_more_workers_than_the_machine_has_cpus_are_refused_with_numbers(tmp_path: Path) -> None:
    left = refused(
        DataConnector.from_arrow(TABLE),
        tmp_path,
        InfeasibleRequestError,
        "4,000 workers",
        workers=4000,
        engine="inline",
    )
    assert "Ask for" in left.message
    assert "CPU" in left.message


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused_with_numbers(tmp_path: Path, ray_address: str) -> None:
    refused(
        DataConnector.from_arrow(TABLE),
        tmp_path,
        InfeasibleRequestError,
        "7 workers of at least 1 CPU",
        "1 node, 4 CPUs",
        "at most 4 workers",
        workers=7,
    )


def test_gpus_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    from shardfit_xgboost import XGBEstimator, XGBScalingConfig

    estimator = XGBEstimator(
        scaling_config=XGBScalingConfig(1, 1, use_gpu=True, engine="inline"), artifact_stage_location=str(tmp_path)
    )
    with pytest.raises(InfeasibleRequestError, match=r"0 GPUs.*use_gpu=False"):
        estimator.fit(DataConnector.from_arrow(TABLE), input_cols=["drift"], label_col="late")


def test_a_store_that_fails_as_well_does_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = str(tmp_path / "nothing.parquet")
    with pytest.raises(SourceNotFoundError, match=path):
        fitted(DataConnector.from_parquet(path), stage=tmp_path / "file" / "stage")


def test_a_store_that_can_not_be_written_is_said_before_a_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match=str(tmp_path / "file")):
        fitted(DataConnector.from_arrow(TABLE), stage=tmp_path / "file" / "stage")


# What looks odd and is welcome.


class TestCastPolicy:
    """Types that are no numbers and have a rule."""

    @pytest.fixture(autouse=True)
    def no_worker(self) -> None:
        """Let workers start."""

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([Decimal(i % 7) / 4 for i in range(ROWS)], pa.decimal128(9, 2)),
            pa.array([date(2020, 1, 1) + timedelta(days=i % 7) for i in range(ROWS)]),
            pa.array(
                [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=i % 7) for i in range(ROWS)],
                pa.timestamp("us", "America/New_York"),
            ),
            pa.array([time(i % 7) for i in range(ROWS)], pa.time64("ns")),
            pa.array([timedelta(hours=i % 7) for i in range(ROWS)]),
            pa.array([i % 7 > 3 for i in range(ROWS)]),
            pa.array([float(i % 7) for i in range(ROWS)]).dictionary_encode(),
        ],
        ids=lambda values: str(values.type),
    )
    def test_a_column_with_a_rule_trains_on_what_it_means(self, tmp_path: Path, values: pa.Array) -> None:
        data = with_values(TABLE, "odd", values)
        data = with_values(data.to_arrow(), "label", [i % 7 > 3 for i in range(ROWS)])
        columns = {"input_cols": ("odd", "drift"), "label_col": "label", "categorical_cols": ()}
        estimator = fitted(data, stage=tmp_path, columns=columns, params={"min_child_weight": 0})
        predicted = estimator.predict(data).to_numpy()
        label = np.array([i % 7 > 3 for i in range(ROWS)])
        assert predicted[label].min() > predicted[~label].max()

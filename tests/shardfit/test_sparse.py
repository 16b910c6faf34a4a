"""Sparse features: what a column may hold, where its number of features is written, and what a profile learns of it."""

from __future__ import annotations

import io
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from shardfit.cli.tables import show_plan
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.engines import current_resources
from shardfit.errors import (
    InfeasibleRequestError,
    InvalidArgumentError,
    InvalidValueError,
    SchemaMismatchError,
    UnsupportedTypeError,
)
from shardfit.job import Job
from shardfit.profile import Profile, ProfileBuilder, SampleSpec
from shardfit.profile.cut_points import choose_cut_points, choose_sparse_cut_points
from shardfit.registry import default_registry
from shardfit.run_plan import RunPlan, plan_run
from shardfit.sparse import SPARSE, SparseRows, features_of, is_sparse
from shardfit.testing.source_kit import check_source

Array = npt.NDArray[Any]
ROLES = ColumnRoles(("features",), ("label",))
WIDE = pa.large_list(pa.struct([("index", pa.int64()), ("value", pa.float64())]))


def table_of(rows: list[list[tuple[int, float]] | None], kind: pa.DataType = SPARSE) -> pa.Table:
    return pa.table({"label": pa.array([float(i % 2) for i in range(len(rows))]), "features": pa.array(rows, kind)})


def planned(data: object, trainer: str = "xgboost", roles: ColumnRoles = ROLES, **changes: Any) -> RunPlan:
    job = Job(trainer=trainer, data=DataConnector.of(data), columns=roles, engine="inline", **changes)
    return plan_run(job, default_registry(), current_resources(engine="inline"))


def source_of(data: object) -> Any:
    return DataConnector.of(data).resolve(default_registry())


@pytest.mark.parametrize("kind", [SPARSE, WIDE])
def test_rows_of_any_arrow_column_become_compressed_rows(kind: pa.DataType) -> None:
    entries = [[(1, 2.0)], [], None, [(0, 1.0), (7, None)], [(3, float("nan")), (4, 0.0)]]
    column = pa.array([None, *entries], kind).slice(1)
    rows = SparseRows.of(column, "f", 8)
    assert (rows.offsets.tolist(), rows.indices.tolist(), rows.values.tolist()) == (
        [0, 1, 1, 1, 2, 3],
        [1, 0, 4],
        [2, 1, 0],
    )
    assert (rows.indices.dtype, rows.values.dtype, rows.rows) == (np.int32, np.float32, 5)
    assert SparseRows.of(column, "f", 8, missing=0.0).indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([(2, 1.0), (1, 1.0)], "found the index 1 after 2 in row 1"),
        ([(2, 1.0), (2, 1.0)], "found the index 2 after 2 in row 1"),
        ([(-1, 1.0)], "found the index -1 of 8 features in row 1"),
        ([(0, 1.0), (8, 1.0)], "found the index 8 of 8 features in row 1"),
        ([(None, 1.0)], "found a null index in row 1"),
    ],
)
def test_a_bad_index_is_named(row: list[tuple[Any, float]], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        SparseRows.of(pa.array([[(5, 1.0)], row, [(0, 1.0)]], SPARSE), "f", 8)


def test_only_lists_of_index_and_value_are_sparse() -> None:
    others = [
        pa.list_(pa.int32()),
        pa.list_(pa.struct([("index", pa.int32())])),
        pa.list_(pa.struct([("index", pa.float32()), ("value", pa.float32())])),
        pa.list_(pa.struct([("index", pa.int32()), ("value", pa.string())])),
        pa.map_(pa.int32(), pa.float32()),
    ]
    assert not any(map(is_sparse, others))
    with pytest.raises(UnsupportedTypeError, match="its type is list"):
        SparseRows.of(pa.array([[1]]), "f", 8)


def test_sources_count_features_and_values(tmp_path: Path) -> None:
    rows = [[(1, 2.0)], [], None, [(0, 1.0), (7, 4.0)], [(9, 1.0)], []]
    table = table_of(rows, WIDE)
    pq.write_table(table.slice(0, 4), tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(table.slice(4), tmp_path / "b.parquet")
    found = [source_of(data) for data in (str(tmp_path), table, DataConnector.from_sources([table.slice(4), table]))]
    assert [features_of(source.schema().field("features")) for source in found] == [10, 10, 10]
    assert [[part.values for part in source.fragments()] for source in found] == [[1, 2, 1], [4], [1, 4]]
    check_source(found[0], table)


def test_a_field_can_say_how_many_features_there_are(tmp_path: Path) -> None:
    table = table_of([[(1, 2.0)], [(0, 1.0)]])
    wider = table.cast(pa.schema([table.schema.field(0), table.schema.field(1).with_metadata({"features": "50"})]))
    pq.write_table(wider, tmp_path / "a.parquet")
    for data in (wider, str(tmp_path / "a.parquet")):
        assert planned(data).casts[0].features == 50
    wrong = table.schema.field(1).with_metadata({"features": "many"})
    with pytest.raises(UnsupportedTypeError, match="found b'many' in the metadata"):
        source_of(table.cast(pa.schema([table.schema.field(0), wrong])))


def test_a_number_of_features_that_nobody_says_is_refused(tmp_path: Path) -> None:
    pq.write_table(table_of([[(1, 2.0)]]), tmp_path / "a.parquet", write_statistics=False)
    with pytest.raises(UnsupportedTypeError, match="Write the field with the metadata"):
        planned(str(tmp_path / "a.parquet"))


def test_what_cannot_be_trained_on_is_said_before_the_start() -> None:
    table = table_of([[(1, 2.0)], [(0, 1.0)]])
    mixed = table.append_column("price", pa.array([1.0, 2.0]))
    with pytest.raises(UnsupportedTypeError, match=r"other features: 'price'\. Pass input_cols=\['features'\]"):
        planned(mixed, roles=ColumnRoles(label=("label",)))
    with pytest.raises(UnsupportedTypeError, match=r"it holds sparse features.* Train XGBoost on it"):
        planned(table, trainer="lightgbm")
    with pytest.raises(UnsupportedTypeError, match="it holds sparse features"):
        planned(table, roles=ColumnRoles(("label",), ("features",)))
    with pytest.raises(UnsupportedTypeError, match="'features'"):
        planned(table, roles=ColumnRoles(("features",), ("label",), categorical=("features",)))
    with pytest.raises(InvalidArgumentError, match="their matrix is made in memory only"):
        planned(table, params={"storage": "disk"})
    with pytest.raises(InfeasibleRequestError, match="needs about"):
        planned(table_of([[(2_000_000_000, 2.0)], [(0, 1.0)]]))


def test_evaluation_data_may_lack_features_and_not_have_more() -> None:
    narrow, wide = table_of([[(1, 2.0)], [(0, 1.0)]]), table_of([[(4, 2.0)], [(0, 1.0)]])
    assert planned(wide, evals={"held_out": DataConnector.of(narrow)}).casts[0].features == 5
    with pytest.raises(SchemaMismatchError, match=r"'held_out'.*it has 5 features, there it has 2"):
        planned(narrow, evals={"held_out": DataConnector.of(wide)})
    dense = pa.table({"label": [0.0, 1.0], "features": [1.0, 2.0]})
    with pytest.raises(SchemaMismatchError, match="it is double, there it is list"):
        planned(wide, evals={"held_out": DataConnector.of(dense)})


def test_the_plan_says_how_many_features_there_are() -> None:
    plan = planned(table_of([[(41, 2.0)], [(0, 1.0)]])).to_dict()
    assert (plan["features"], plan["casts"][0]["features"]) == (["features"], 42)
    shown = io.StringIO()
    show_plan(Console(file=shown, width=200), plan)
    assert "(xgboost, 42 features)" in shown.getvalue()


def test_memory_is_planned_from_the_values_that_are_there() -> None:
    rows = [[(i % 50, 1.0), (1_000_000 + i, 2.0)] for i in range(1_000)]
    shape_of = planned(table_of(rows)).memory
    assert shape_of["matrix"] < 100_000
    assert shape_of.peak < 2**30


VALUES = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0]), st.floats(-100, 100, width=32).map(float))
MATRIX = st.lists(st.lists(st.one_of(st.none(), VALUES), min_size=4, max_size=4), min_size=1, max_size=60)


@given(
    matrix=MATRIX,
    weighted=st.booleans(),
    fraction=st.sampled_from([0.0, 0.5, 1.0]),
    distinct=st.integers(2, 12),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    max_bin=st.integers(2, 12),
)
def test_a_sparse_profile_gives_the_bins_of_a_dense_one_however_it_was_divided(
    matrix: list[list[float | None]], weighted: bool, fraction: float, distinct: int, cuts: list[int], max_bin: int
) -> None:
    dense = np.array([[np.nan if v is None else v for v in row] for row in matrix], dtype=np.float32)
    weights = (np.arange(len(dense)) % 3).astype(np.float32) / 7 if weighted else None
    spec = SampleSpec(3, fraction, distinct)
    whole = ProfileBuilder(4, 1, 0, spec)
    whole.add_features(np.arange(len(dense)), [dense.T], weights, [])
    parts = []
    bounds = [0, *sorted(min(cut, len(dense)) for cut in cuts), len(dense)]
    for start, stop in pairwise(bounds):
        builder = ProfileBuilder(0, 1, 0, spec, sparse_features=4)
        for i in range(start, stop, 7):
            ids = np.arange(i, min(i + 7, stop))
            builder.add_labels(ids, np.zeros(len(ids), dtype=np.float32))
            builder.add_sparse(ids, rows_of(dense[ids]), None if weights is None else weights[ids])
        parts.append(builder.build())
    # Merged in another order, too: the sum must not depend on it.
    for order in (parts, parts[::-1]):
        summary = Profile.merge(order).sparse
        assert summary is not None
        expected = whole.build()
        np.testing.assert_array_equal(summary.present, len(dense) - expected.missing)
        found = choose_sparse_cut_points(summary, max_bin)
        for j, points in enumerate(found):
            np.testing.assert_array_equal(points, choose_cut_points(expected, j, max_bin))


def rows_of(dense: Array) -> SparseRows:
    there = ~np.isnan(dense)
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
    return SparseRows(offsets, np.nonzero(there)[1].astype(np.int32), dense[there], dense.shape[1])


def test_a_profile_without_its_sample_holds_none_of_it() -> None:
    builder = ProfileBuilder(0, 1, 0, SampleSpec(0, 1.0, 8), sparse_features=4)
    builder.add_sparse(np.arange(2), rows_of(np.ones((2, 4), dtype=np.float32)), None)
    summary = builder.build().without_sample().sparse
    assert summary is not None
    assert all(array.base is None for name, array in asdict_of(summary).items() if name.startswith("sample_"))


def asdict_of(summary: Any) -> dict[str, Any]:
    return {field.name: getattr(summary, field.name) for field in fields(summary)}

"""Ray datasets as a source, and connectors turned into Ray datasets, on a real cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardfit.connector import DataConnector
from shardfit.engine import WorkerContext
from shardfit.engines import make_engine
from shardfit.engines.machine import LOCAL_NODE
from shardfit.errors import DataError, InvalidArgumentError, SchemaMismatchError
from shardfit.scaling import WorkerLayout, WorkerSlot
from shardfit.source import DataSource, Fragment
from shardfit.sources.ray_dataset import RayDatasetOpener
from shardfit.testing.source_kit import check_source, read_table

pytestmark = [
    pytest.mark.ray,
    # Ray Data sets its own deprecated settings when it is imported.
    pytest.mark.filterwarnings("ignore:`use_.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def data(lasting_ray_address: str) -> Any:
    make_engine("ray").resources()
    import ray.data

    return ray.data


def open_dataset(dataset: Any) -> DataSource:
    return RayDatasetOpener().open(dataset, {})


def tables() -> list[pa.Table]:
    return [
        pa.table({"id": pa.array(range(first, first + rows)), "name": [f"row {i}" for i in range(rows)]})
        for first, rows in ((0, 10), (10, 1), (11, 25))
    ]


def test_blocks_are_fragments_in_the_order_of_the_dataset(data: Any) -> None:
    source = open_dataset(data.from_arrow(tables()))
    assert [fragment.rows for fragment in source.fragments()] == [10, 1, 25]
    check_source(source, pa.concat_tables(tables()))
    assert source.describe() == "Ray dataset of 36 rows in 3 blocks"


def test_blocks_of_pandas_frames_get_the_types_that_fit_all_of_them(data: Any) -> None:
    frames = [pd.DataFrame({"a": [1, 2], "b": [None, None]}), pd.DataFrame({"a": [3], "b": ["x"]})]
    source = open_dataset(data.from_pandas(frames))
    assert read_table(source).to_pydict() == {"a": [1, 2, 3], "b": [None, None, "x"]}


def test_blocks_that_disagree_about_a_column_are_refused(data: Any) -> None:
    frames = [pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": ["x"]})]
    with pytest.raises(SchemaMismatchError, match="blocks disagree"):
        open_dataset(data.from_pandas(frames))


def test_a_dataset_that_was_cut_short_within_a_block_has_the_rows_that_are_left(data: Any) -> None:
    source = open_dataset(data.from_arrow(tables()).limit(15).materialize())
    assert read_table(source)["id"].to_pylist() == list(range(15))


def test_a_lazy_dataset_is_refused_with_what_to_call(data: Any) -> None:
    lazy = data.range(5).map(lambda row: row)
    assert RayDatasetOpener().claims(lazy) is not None
    with pytest.raises(DataError, match=r"dataset\.materialize\(\)"):
        open_dataset(lazy)


def test_options_are_refused(data: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="'rows': 1"):
        RayDatasetOpener().open(data.from_arrow(tables()), {"rows": 1})


def read_in_worker(context: WorkerContext, source: DataSource, fragment: Fragment) -> list[int]:
    return read_table(source, ["id"], [fragment])["id"].to_pylist()


def test_workers_read_blocks_for_themselves(data: Any) -> None:
    source = open_dataset(data.from_arrow(tables()))
    layout = WorkerLayout("ray", tuple(WorkerSlot(rank, LOCAL_NODE, 1) for rank in range(2)), ("A test.",))
    with make_engine("ray").start(layout) as group:
        shared = group.share(source)
        fragments = source.fragments()
        found = group.run(read_in_worker, [(shared, fragments[0]), (shared, fragments[2])], lambda event: None)
    assert found == [list(range(10)), list(range(11, 36))]


def test_a_connector_becomes_a_ray_dataset_with_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    for name, table in zip("bac", tables(), strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=4)
    connector = DataConnector.from_parquet(str(tmp_path))
    exported = connector.to_ray_dataset()
    assert [row["id"] for row in exported.take_all()] == connector.to_arrow()["id"].to_pylist()
    assert DataConnector.from_ray_dataset(exported.materialize()).to_arrow().equals(connector.to_arrow())


def test_an_empty_table_becomes_an_empty_ray_dataset_with_its_columns() -> None:
    exported = DataConnector.from_arrow(tables()[0].slice(0, 0)).to_ray_dataset()
    assert exported.count() == 0
    assert exported.schema().names == ["id", "name"]

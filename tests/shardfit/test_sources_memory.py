"""Tables in memory, DataFrames of several libraries, datasets with partitions, and several sources as one."""

import pickle
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import (
    ChangedDataError,
    InvalidArgumentError,
    SchemaMismatchError,
    SourceNotFoundError,
    UnreadableSourceError,
    UnsupportedTypeError,
)
from shardfit.source import DataSource
from shardfit.sources.arrow import ArrowOpener, ArrowSource
from shardfit.sources.concat import ConcatOpener, ConcatSource
from shardfit.sources.dataframe import DataFrameOpener
from shardfit.sources.dataset import DatasetOpener
from shardfit.sources.parquet import ParquetSource
from shardfit.testing.source_kit import check_source, read_table

FLOATS = st.lists(st.none() | st.floats(width=32), max_size=40)


def frame_source(obj: object) -> DataSource:
    opener = DataFrameOpener()
    assert opener.claims(obj) is not None
    return opener.open(obj, {})


@given(values=FLOATS, pieces=st.integers(1, 9), size=st.integers(1, 20), batch=st.integers(1, 9))
def test_any_row_range_of_a_table_equals_its_slice(
    values: list[float | None], pieces: int, size: int, batch: int
) -> None:
    column = pa.array(values, pa.float32())
    chunks = [column.slice(i, pieces) for i in range(0, len(values), pieces)]
    table = pa.table({"x": pa.chunked_array(chunks, pa.float32()), "row": np.arange(len(values))})
    source = ArrowSource(table, fragment_rows=size)
    assert source.in_memory()
    check_source(source, table, batch)


def test_rows_of_a_table_are_read_without_a_copy() -> None:
    table = pa.table({"x": np.arange(1000.0)})
    source = ArrowSource(table, fragment_rows=300)
    before = pa.total_allocated_bytes()
    batches = [batch for part in source.fragments() for batch in source.read(part, ["x"], 0, part.rows, 128)]
    assert pa.total_allocated_bytes() == before
    assert batches[0].column(0).buffers()[1].address == table["x"].chunk(0).buffers()[1].address


def test_an_opener_takes_tables_and_record_batches_only() -> None:
    batch = pa.record_batch({"x": [1]})
    assert ArrowOpener().claims(batch)
    assert ArrowOpener().claims(pa.table(batch))
    assert ArrowOpener().claims(pd.DataFrame()) is None
    check_source(ArrowOpener().open(batch, {}), pa.table(batch))


def test_a_pandas_frame_loses_its_index_and_nan_is_null() -> None:
    frame = pd.DataFrame({"x": [1.5, np.nan], "s": ["a", None], "c": pd.Categorical(["u", "v"])}, index=[7, 9])
    source = frame_source(frame)
    assert source.schema().names == ["x", "s", "c"]
    assert read_table(source).to_pylist() == [{"x": 1.5, "s": "a", "c": "u"}, {"x": None, "s": None, "c": "v"}]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_polars_frame_gives_types_that_all_of_arrow_knows(lazy: bool) -> None:
    frame = pl.DataFrame({"x": [1, None], "s": ["a", "b"], "c": pl.Series(["u", "v"], dtype=pl.Categorical)})
    source = frame_source(frame.lazy() if lazy else frame)
    assert source.schema().field("s").type == pa.large_string()
    assert read_table(source).to_pylist() == frame.to_dicts()


def test_a_duckdb_relation_is_computed_once_into_memory() -> None:
    with duckdb.connect() as connection:
        source = frame_source(connection.sql("select range as x, range::varchar as s from range(1000) order by x"))
    table = pa.table({"x": np.arange(1000), "s": [str(i) for i in range(1000)]})
    check_source(source, table, batch_rows=300)


def test_anything_with_an_arrow_stream_is_the_last_resort() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"x": [1, 2]}).__arrow_c_stream__(requested_schema)

    assert DataFrameOpener().claims(Stream()).priority == 1
    check_source(frame_source(Stream()), pa.table({"x": [1, 2]}))
    assert DataFrameOpener().claims(Stream) is None
    assert DataFrameOpener().claims([1, 2]) is None


def test_a_column_of_mixed_values_is_refused() -> None:
    with pytest.raises(UnsupportedTypeError, match="pandas DataFrame"):
        frame_source(pd.DataFrame({"x": [1, "a", b"b"]}))


def partitioned(folder: Path, rows: int = 30) -> pa.Table:
    years = np.repeat([2013, 2014, 2015], rows // 3)
    table = pa.table({"x": np.arange(float(rows)), "s": [str(i % 4) for i in range(rows)], "year": years})
    for year in (2013, 2014, 2015):
        part = table.slice((year - 2013) * (rows // 3), rows // 3).drop_columns(["year"])
        (folder / f"year={year}").mkdir(parents=True)
        pq.write_table(part, folder / f"year={year}" / "a.parquet", row_group_size=4)
    return table.set_column(2, "year", table["year"].cast(pa.int32()))


def test_hive_partitions_become_columns(tmp_path: Path) -> None:
    table = partitioned(tmp_path)
    source = DatasetOpener().open(pads.dataset(tmp_path, partitioning="hive"), {})
    assert len(source.fragments()) == 9
    check_source(source, table)


def test_workers_get_no_list_of_the_files_of_a_dataset(tmp_path: Path) -> None:
    for i in range(300):
        pq.write_table(pa.table({"x": [i]}), tmp_path / f"a rather long name of a file {i:03}.parquet")
    source = DatasetOpener().open(pads.dataset(tmp_path), {})
    part = source.fragments()[5]
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 3_000
    assert read_table(pickle.loads(pickle.dumps(copy)), fragments=[part]).to_pylist() == [{"x": 5}]


def test_columns_that_a_file_of_a_dataset_lacks_are_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [2], "y": [3.5]}), tmp_path / "b.parquet")
    schema = pa.schema([("x", pa.int64()), ("y", pa.float64())])
    source = DatasetOpener().open(pads.dataset(tmp_path, schema=schema), {})
    check_source(source, pa.table({"x": [1, 2], "y": [None, 3.5]}, schema=schema))


@pytest.mark.parametrize("kind", ["csv", "feather"])
def test_datasets_of_other_formats_have_one_fragment_a_file(tmp_path: Path, kind: str) -> None:
    tables = [pa.table({"x": np.arange(10) + 10 * i}) for i in range(2)]
    for i, table in enumerate(tables):
        pads.write_dataset(table, tmp_path / str(i), format=kind)
    source = DatasetOpener().open(pads.dataset(tmp_path, format=kind), {})
    assert len(source.fragments()) == 2
    check_source(source, pa.concat_tables(tables))


def test_datasets_in_memory_and_unions_are_read_whole(tmp_path: Path) -> None:
    table = partitioned(tmp_path).select(["x", "s", "year"])
    files = pads.dataset(tmp_path, partitioning="hive")
    check_source(DatasetOpener().open(pads.dataset(table), {}), table)
    union = pads.dataset([files, pads.dataset(table)])
    check_source(DatasetOpener().open(union, {}), pa.concat_tables([table, table]))


def test_a_filtered_dataset_is_refused_rather_than_read_unfiltered(tmp_path: Path) -> None:
    partitioned(tmp_path)
    with pytest.raises(InvalidArgumentError, match="filter"):
        DatasetOpener().open(pads.dataset(tmp_path).filter(pads.field("x") > 3), {})


def test_a_dataset_file_changed_after_planning_is_an_error(tmp_path: Path) -> None:
    partitioned(tmp_path)
    source = DatasetOpener().open(pads.dataset(tmp_path), {})
    part = source.fragments()[0]
    pq.write_table(pa.table({"x": [1.0], "s": ["a"]}), tmp_path / "year=2013" / "a.parquet")
    with pytest.raises(ChangedDataError, match="year=2013"):
        read_table(source, fragments=[part])


def test_a_corrupt_page_of_a_dataset_names_file_row_group_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"x": np.arange(900), "y": np.arange(900.0)}), path, row_group_size=300, use_dictionary=False
    )
    chunk = pq.read_metadata(path).row_group(2).column(1)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\x5a" * (chunk.total_compressed_size // 4))
    source = DatasetOpener().open(pads.dataset(tmp_path), {})
    with pytest.raises(UnreadableSourceError, match=r"a\.parquet', row group 2, column 'y'"):
        read_table(source)


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5), batch=st.integers(1, 5))
def test_several_sources_follow_one_another(sizes: list[int], batch: int) -> None:
    tables = [pa.table({"x": np.arange(rows) + 100 * i}) for i, rows in enumerate(sizes)]
    source = ConcatSource([ArrowSource(table, fragment_rows=5) for table in tables])
    check_source(source, pa.concat_tables(tables), batch)


def test_sources_of_sources_files_and_memory_keep_fragments_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2], "k": ["a", "b"]}), tmp_path / "a.parquet")
    file = ParquetSource([str(tmp_path / "a.parquet")])
    memory = ArrowSource(pa.table({"k": ["c"], "x": [3]}))
    inner = ConcatSource([memory, memory])
    source = ConcatSource([inner, file, inner])
    rows = pa.table({"k": ["c", "c", "a", "b", "c", "c"], "x": [3, 3, 1, 2, 3, 3]})
    check_source(source, rows)
    assert source.in_memory()
    assert not ConcatSource([file]).in_memory()


def test_sources_that_disagree_name_the_column() -> None:
    with pytest.raises(SchemaMismatchError, match="'x'"):
        ConcatSource([ArrowSource(pa.table({"x": [1]})), ArrowSource(pa.table({"x": ["a"]}))]).fragments()


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_either_width_is_text(kind: pa.DataType) -> None:
    narrow = pa.table({"s": pa.array(["a", None, "b"], pa.string()).cast(kind)})
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    wide_inner = pa.large_binary() if pa.types.is_binary(inner) else pa.large_string()
    wide = narrow.cast(pa.schema({"s": pa.dictionary(pa.int32(), wide_inner) if inner is not kind else wide_inner}))
    for first, second in ((narrow, wide), (wide, narrow)):
        joined = read_table(ConcatSource([ArrowSource(first), ArrowSource(second)]))
        assert joined.schema.field("s").type == first.schema.field("s").type
        assert joined["s"].to_pylist() == narrow["s"].to_pylist() * 2


def test_no_sources_at_all_is_an_error() -> None:
    with pytest.raises(SourceNotFoundError, match="found none"):
        ConcatSource([])
    assert ConcatOpener().claims(()) is None
    assert ConcatOpener().claims(["a.parquet"]) is None

"""Parquet: finding files, planning row groups, reading ranges, and saying what is wrong with a file."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
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
)
from shardfit.source import DataSource
from shardfit.sources.concat import ConcatSource
from shardfit.sources.file_listing import list_files
from shardfit.sources.parquet import ParquetSource, read_footers
from shardfit.testing.source_kit import check_source, read_table


def make_table(rows: int, first: int = 0) -> pa.Table:
    ids = np.arange(first, first + rows)
    text = pa.array([None if i % 5 == 0 else f"name {i % 3}" for i in ids], pa.string())
    return pa.table({"id": ids, "value": ids / 7, "text": text, "kind": text.dictionary_encode()})


def write(table: pa.Table, path: Path, **options: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return str(path)


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3), group=st.integers(1, 8), batch=st.integers(1, 9))
def test_any_row_range_of_any_files_equals_the_slice_of_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group: int, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    tables = [make_table(rows, first=100 * i) for i, rows in enumerate(sizes)]
    for i, table in enumerate(tables):
        write(table, folder / f"{i}.parquet", row_group_size=group)
    check_source(ParquetSource([str(folder)]), pa.concat_tables(tables, promote_options="default"), batch)


@pytest.mark.parametrize(("cpus", "threads"), [(1, False), (2, True), (64, True)])
def test_with_one_cpu_no_threads_of_arrow_decode(
    tmp_path: Path, cpus: int, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, asked = make_table(9), []
    source: DataSource = ParquetSource([write(table, tmp_path / "a.parquet")])
    if cpus == 64:
        source = ConcatSource([source])
    fragments = source.fragments()
    iter_batches = pq.ParquetFile.iter_batches

    def noted(*args: Any, **options: Any) -> Any:
        asked.append(options["use_threads"])
        return iter_batches(*args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    assert read_table(source.for_cpus(cpus), fragments=fragments).equals(read_table(source))
    assert asked == [threads, True]


def test_fragments_sort_by_file_and_row_group_however_the_files_are_named(tmp_path: Path) -> None:
    paths = [write(make_table(5), tmp_path / f"{name}.parquet", row_group_size=2) for name in "cab"]
    listed = [ParquetSource(order).fragments() for order in (paths, paths[::-1], [str(tmp_path)])]
    assert listed[0] == listed[1] == listed[2]
    assert [(Path(part.uri).stem, part.index) for part in listed[0]] == [(n, i) for n in "abc" for i in range(3)]


def test_a_pickled_source_does_not_carry_its_listing(tmp_path: Path) -> None:
    for i in range(200):
        write(make_table(1), tmp_path / f"a rather long name of a file {i}.parquet")
    source = ParquetSource([str(tmp_path)])
    before = len(pickle.dumps(source))
    part = source.fragments()[7]
    assert len(pickle.dumps(source)) < before + 2_000
    assert read_table(pickle.loads(pickle.dumps(source)), fragments=[part]).num_rows == 1


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a.parquet", "b.PARQUET", "deep/er/c.parquet", "deep/d", "x[1].parquet"]),
        ("*.parquet", ["a.parquet", "x[1].parquet"]),
        ("**/*.parquet", ["a.parquet", "deep/er/c.parquet", "x[1].parquet"]),
        ("**", ["a.parquet", "b.PARQUET", "deep/d", "deep/er/c.parquet", "notes.txt", "x[1].parquet"]),
        ("[a-b].*", ["a.parquet", "b.PARQUET"]),
        ("[!a].*", ["b.PARQUET"]),
        ("?.parquet", ["a.parquet"]),
        ("de*", ["deep/d", "deep/er/c.parquet"]),
        ("x[1].parquet", ["x[1].parquet"]),
    ],
)
def test_folders_globs_and_literal_names_lead_to_the_files_they_name(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    names = ["a.parquet", "b.PARQUET", "deep/er/c.parquet", "deep/d", "x[1].parquet", "notes.txt"]
    for name in [*names, "_temporary/e.parquet", ".hidden.parquet", "deep/_SUCCESS"]:
        write(make_table(1), tmp_path / name)
    listed = ParquetSource([str(tmp_path / pattern)]).fragments()
    access = ParquetSource([str(tmp_path / pattern)])._reach()
    paths = [access.path(part.uri) for part in listed]
    assert sorted(os.path.relpath(path, tmp_path) for path in paths) == sorted(found)


def test_file_urls_and_another_file_system_read_the_same_rows(tmp_path: Path) -> None:
    table = make_table(9)
    path = write(table, tmp_path / "with space & %.parquet")
    check_source(ParquetSource([Path(path).as_uri()]), table)
    within = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    check_source(ParquetSource(["with space & %.parquet"], {"filesystem": within}), table)


def test_no_rows_and_no_row_groups_are_fine(tmp_path: Path) -> None:
    empty = write(make_table(0), tmp_path / "empty.parquet")
    with pq.ParquetWriter(tmp_path / "none.parquet", make_table(0).schema):
        pass
    source = ParquetSource([empty, str(tmp_path / "none.parquet")])
    assert sum(part.rows for part in source.fragments()) == 0
    assert source.schema().names == ["id", "value", "text", "kind"]


def test_columns_in_another_order_and_other_dictionaries_agree(tmp_path: Path) -> None:
    first = pa.table({"a": [1], "kind": pa.array(["x"]).dictionary_encode()})
    second = pa.table(
        {"kind": pa.array(["y"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())), "a": [2]}
    )
    write(first, tmp_path / "1.parquet")
    write(second, tmp_path / "2.parquet")
    assert read_table(ParquetSource([str(tmp_path)])).to_pylist() == [{"a": 1, "kind": "x"}, {"a": 2, "kind": "y"}]


@pytest.mark.parametrize(
    ("other", "column"),
    [({"a": [1.5], "b": [1]}, "a"), ({"a": [1]}, "b"), ({"a": [1], "b": [1], "c": [1]}, "c")],
    ids=["type", "fewer", "more"],
)
def test_files_that_disagree_name_the_file_and_the_column(tmp_path: Path, other: dict[str, list], column: str) -> None:
    write(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
    write(pa.table(other), tmp_path / "2.parquet")
    with pytest.raises(SchemaMismatchError, match=rf"'{column}'.*2\.parquet"):
        ParquetSource([str(tmp_path)]).schema()


@pytest.mark.parametrize("name", ["none.parquet", "none/*.parquet", "*.parquet", ""])
def test_a_path_that_leads_nowhere_says_what_was_looked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(SourceNotFoundError, match=str(tmp_path / name).replace("*", r"\*")):
        ParquetSource([str(tmp_path / name)]).fragments()


def test_an_empty_list_of_paths_is_an_error() -> None:
    with pytest.raises(SourceNotFoundError, match="empty list"):
        ParquetSource([]).fragments()


def test_a_file_named_twice_is_an_error(tmp_path: Path) -> None:
    path = write(make_table(1), tmp_path / "a.parquet")
    with pytest.raises(InvalidArgumentError, match="twice"):
        ParquetSource([path, str(tmp_path / "*.parquet")]).fragments()


def test_paths_on_two_storages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="from_sources"):
        ParquetSource([str(tmp_path / "a.parquet"), "gs://bucket/b.parquet"]).fragments()


def test_an_unknown_scheme_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidArgumentError, match="'ftp'") as caught:
        ParquetSource(["ftp://user:canary@host/a.parquet"]).fragments()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing of use", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_corrupt_footer_is_found_at_planning_and_names_the_file(tmp_path: Path, content: bytes) -> None:
    write(make_table(3), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(UnreadableSourceError, match=r"bad\.parquet"):
        ParquetSource([str(tmp_path)]).fragments()


@pytest.mark.parametrize("checksum", [True, False])
def test_a_corrupt_page_names_file_row_group_and_column(tmp_path: Path, checksum: bool) -> None:
    options = {"row_group_size": 1000, "use_dictionary": ["text"], "write_page_checksum": checksum}
    path = write(make_table(3000), tmp_path / "a.parquet", **options)
    chunk = pq.read_metadata(path).row_group(1).column(1)
    with Path(path).open("r+b") as file:
        # A checksum tells a changed value; without one, only what breaks the compression is seen.
        file.seek(chunk.data_page_offset + (chunk.total_compressed_size // 2 if checksum else 0))
        file.write(b"\x5a" * (chunk.total_compressed_size // 4))
    source = ParquetSource([path])
    first, second, _ = source.fragments()
    assert read_table(source, fragments=[first]).num_rows == 1000
    with pytest.raises(UnreadableSourceError, match=r"a\.parquet', row group 1, column 'value'"):
        read_table(source, fragments=[second])
    assert read_table(source, ["id", "text"], [second]).num_rows == 1000


@pytest.mark.parametrize("change", ["replaced", "deleted", "touched"])
def test_a_file_changed_after_planning_is_an_error(tmp_path: Path, change: str) -> None:
    path = write(make_table(10), tmp_path / "a.parquet")
    source = ParquetSource([path])
    part = source.fragments()[0]
    read_table(source, fragments=[part])
    if change == "replaced":
        write(make_table(11), tmp_path / "a.parquet")
    elif change == "deleted":
        Path(path).unlink()
    else:
        os.utime(path, (1, 1))
    with pytest.raises(ChangedDataError, match=r"a\.parquet"):
        read_table(source, fragments=[part])


def test_a_file_changed_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write(make_table(10), tmp_path / "a.parquet")
    source = ParquetSource([path])
    batches = source.read(source.fragments()[0], ["id"], 0, 10, 4)
    next(batches)
    os.utime(path, (1, 1))
    with pytest.raises(ChangedDataError):
        list(batches)


def test_folders_that_look_like_hive_partitions_are_warned_about(tmp_path: Path) -> None:
    write(make_table(1), tmp_path / "year=2013" / "a.parquet")
    source = ParquetSource([str(tmp_path)])
    assert any("year=2013" in warning and "from_dataset" in warning for warning in source.warnings())


def test_memory_is_bounded_by_the_batch_and_not_by_the_row_group(tmp_path: Path) -> None:
    rows = 2_000_000
    rng = np.random.default_rng(0)
    path = write(pa.table({f"c{i}": rng.random(rows) for i in range(4)}), tmp_path / "a.parquet", row_group_size=rows)
    source = ParquetSource([path])
    part = source.fragments()[0]
    pool, before = pa.default_memory_pool(), pa.total_allocated_bytes()
    peak = max(pool.bytes_allocated() - before for _ in source.read(part, source.schema().names, 0, rows, 8192))
    assert 0 < peak < part.bytes / 3


def test_footers_that_agree_share_one_schema(tmp_path: Path) -> None:
    for name, values in {"a": [1.0], "b": [2.0], "c": ["text"]}.items():
        pq.write_table(pa.table({"x": values}), tmp_path / f"{name}.parquet")
    access, files = list_files([str(tmp_path)], (".parquet",), {})
    first, second, other = (footer.schema for footer in read_footers(access, files))
    assert first is second
    assert other.field("x").type == pa.string()

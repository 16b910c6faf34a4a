"""CSV: counting rows by bytes, quoted newlines, settled types, and saying what is wrong with a file."""

import bz2
import csv
import gzip
import io
import os
import pickle
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import (
    ChangedDataError,
    InvalidArgumentError,
    SchemaMismatchError,
    SourceNotFoundError,
    UnknownColumnError,
    UnknownParameterError,
    UnreadableSourceError,
)
from shardfit.sources.csv_files import CsvOpener, CsvSource
from shardfit.sources.csv_scan import BlockScan, scan_bytes
from shardfit.testing.source_kit import check_source, read_table

TEXT = st.text(alphabet=st.sampled_from(list("ab,\"\n\r ;'é")), min_size=1, max_size=6)


def write(path: Path, text: str, encoding: str = "utf8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def rows_of(source: CsvSource) -> list[dict[str, object]]:
    return read_table(source).to_pylist()


@given(
    values=st.lists(st.tuples(st.integers(-5, 5), TEXT), max_size=25),
    block=st.integers(1, 60),
    newline=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    last_newline=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_quoted_newlines_survive_any_block_size(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[tuple[int, str]],
    block: int,
    newline: str,
    last_newline: bool,
    quoting: int,
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=newline, quoting=quoting)
    writer.writerows([("number", "text"), *values])
    text = buffer.getvalue() if last_newline else buffer.getvalue().removesuffix(newline)
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text)
    types = {"number": "int64", "text": "string"}
    source = CsvSource([path], {"block_bytes": block, "column_types": types, "null_values": ["no such text"]})
    columns = [[number for number, _ in values], [text for _, text in values]]
    expected = pa.table(columns, schema=pa.schema([("number", pa.int64()), ("text", pa.string())]))
    assert not source.warnings()
    check_source(source, expected, batch_rows=3)


@given(
    data=st.binary(min_size=1, max_size=60).map(lambda raw: bytes(b'a,"\n\r'[byte % 5] for byte in raw)), cut=st.data()
)
def test_scans_of_parts_add_up_to_the_scan_of_the_whole(data: bytes, cut: st.DataObject) -> None:
    place = cut.draw(st.integers(0, len(data)))
    whole = scan_bytes(data, 0, ord("\n"), ord(","), ord('"'))
    parts, previous, start = BlockScan(), ord("\n"), 0
    for part in filter(None, (data[:place], data[place:])):
        parts = parts.followed_by(scan_bytes(part, start, previous, ord(","), ord('"')))
        previous, start = part[-1], start + len(part)
    assert parts == whole


def test_a_worker_reads_its_range_of_bytes_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\n" + "".join(f"{i},{i}.5\n" for i in range(1000)))
    source = CsvSource([path], {"block_bytes": 500})
    parts = source.fragments()
    assert len(parts) > 10
    assert all(part.position[1] - part.position[0] < 600 for part in parts)
    assert [a.position[1] for a in parts[:-1]] == [b.position[0] for b in parts[1:]]


def test_files_sort_by_name_and_a_pickled_source_carries_no_listing(tmp_path: Path) -> None:
    for i in range(100):
        write(tmp_path / f"a rather long name of a file {i:03}.csv", f"a\n{i}\n")
    source = CsvSource([str(tmp_path)])
    before = len(pickle.dumps(source))
    assert [row["a"] for row in rows_of(source)] == list(range(100))
    assert len(pickle.dumps(source)) < before + 1_000


def test_types_are_inferred_once_from_samples_of_all_files(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "n,d,t,s,e,flag\n1,2013-01-01,2013-01-01 00:00:00,1,,true\n")
    write(tmp_path / "2.csv", "n,d,t,s,e,flag\n2.5,2013-01-02,2013-01-02 00:00:00,x,,false\n")
    source = CsvSource([str(tmp_path)])
    kinds = dict(zip(source.schema().names, source.schema().types, strict=True))
    expected = [pa.float64(), pa.date32(), pa.timestamp("s"), pa.string(), pa.float64(), pa.bool_()]
    assert list(kinds.values()) == expected
    first = {"n": 1.0, "d": date(2013, 1, 1), "t": datetime(2013, 1, 1), "s": "1", "e": None, "flag": True}
    assert rows_of(source)[0] == first


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_compressed_file_is_one_fragment_and_the_plan_is_told(tmp_path: Path, suffix: str, pack: object) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(pack(b'a,b\n1,"x\ny"\n2,z\n'))
    source = CsvSource([str(path)], {"block_bytes": 4})
    assert len(source.fragments()) == 1
    assert "cannot be divided" in source.warnings()[0]
    check_source(source, pa.table({"a": [1, 2], "b": ["x\ny", "z"]}))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, 'a,b\n1,5" pipe\n2,"x\ny"\n'),
        ({"escape_char": "\\"}, 'a,b\n1,5\\" pipe\n2,"x\ny"\n'),
        ({"encoding": "utf-16"}, 'a,b\n1,"5"" pipe"\n2,"x\ny"\n'),
    ],
    ids=["stray quotes", "escapes", "wide characters"],
)
def test_a_file_whose_bytes_do_not_show_its_rows_is_one_fragment(
    tmp_path: Path, options: dict[str, str], text: str
) -> None:
    path = write(tmp_path / "a.csv", text, options.get("encoding", "utf8"))
    source = CsvSource([path], {**options, "block_bytes": 4})
    assert len(source.fragments()) == 1
    assert source.warnings()
    check_source(source, pa.table({"a": [1, 2], "b": ['5" pipe', "x\ny"]}))


def test_the_options_reach_the_parser(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a comment\nand more\n'x;1';1,5;yes;none\n'y';2;no;7\n")
    options = {
        "delimiter": ";",
        "quote_char": "'",
        "skip_rows": 2,
        "column_names": ["s", "n", "b", "m"],
        "decimal_point": ",",
        "true_values": ["yes"],
        "false_values": ["no"],
        "null_values": ["none"],
        "column_types": {"m": "int32"},
        "block_bytes": 3,
    }
    expected = pa.table({"s": ["x;1", "y"], "n": [1.5, 2.0], "b": [True, False], "m": pa.array([None, 7], pa.int32())})
    check_source(CsvSource([path], options), expected)


def test_no_header_numbers_the_columns_and_tsv_means_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "1\tx\n2\ty\n")
    check_source(CsvSource([path], {"header": False}), pa.table({"f0": [1, 2], "f1": ["x", "y"]}))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufeffa,b\n1,2\n")
    check_source(CsvSource([path], {"block_bytes": 2}), pa.table({"a": [1], "b": [2]}))


def test_columns_in_another_order_are_read_by_name(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,x\n")
    write(tmp_path / "2.csv", "b,a\ny,2\n")
    (tmp_path / "3.csv.gz").write_bytes(gzip.compress(b"b,a\nz,3\n"))
    check_source(CsvSource([str(tmp_path)]), pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}))


def test_a_header_without_rows_is_an_empty_dataset(tmp_path: Path) -> None:
    source = CsvSource([write(tmp_path / "a.csv", "a,b\n")])
    assert (source.schema().names, tuple(source.fragments())) == (["a", "b"], ())


def test_headers_that_disagree_name_the_file_and_the_column(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,2\n")
    write(tmp_path / "2.csv", "a,c\n1,2\n")
    with pytest.raises(SchemaMismatchError, match=r"'b'.*2\.csv"):
        CsvSource([str(tmp_path)]).fragments()


def test_a_value_that_does_not_parse_names_file_and_fragment(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n" + "1\n" * 50 + "oops\n")
    source = CsvSource([path], {"column_types": {"a": "int64"}, "block_bytes": 40, "null_values": ["no such text"]})
    with pytest.raises(UnreadableSourceError, match=r"oops"):
        source.fragments()
    sampled_clean = write(tmp_path / "b.csv", "a\n" + "1\n" * 3_000_000 + "oops\n" + "1\n" * 3_000_000)
    source = CsvSource([sampled_clean], {"block_bytes": 100_000})
    with pytest.raises(UnreadableSourceError, match=r"b\.csv', fragment \d+: .*oops.*column_types"):
        read_table(source)


def test_a_row_with_too_few_values_names_the_file(tmp_path: Path) -> None:
    source = CsvSource([write(tmp_path / "a.csv", "a,b\n1,2\n3\n")])
    with pytest.raises(UnreadableSourceError, match=r"a\.csv"):
        read_table(source)


def test_a_file_of_no_bytes_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSourceError, match=r"a\.csv"):
        CsvSource([write(tmp_path / "a.csv", "")]).schema()


def test_a_truncated_archive_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + os.urandom(5000).hex().encode() + b"\n")[:3000])
    with pytest.raises(UnreadableSourceError, match=r"a\.csv\.gz"):
        CsvSource([str(path)]).fragments()


def test_a_file_changed_after_planning_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n1\n")
    source = CsvSource([path])
    part = source.fragments()[0]
    write(tmp_path / "a.csv", "a\n1\n2\n")
    with pytest.raises(ChangedDataError, match=r"a\.csv"):
        read_table(source, fragments=[part])


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownParameterError, match="'delimiter'"):
        CsvOpener().open("a.csv", {"delimeter": ";"})


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": ""},
        {"quote_char": "ab"},
        {"skip_rows": -1},
        {"column_types": {"a": "no type"}},
        {"block_bytes": 0},
    ],
)
def test_an_option_of_no_use_shows_its_value(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        CsvOpener().open("a.csv", options)


def test_a_type_for_a_column_that_is_not_there_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n1\n")
    with pytest.raises(UnknownColumnError, match="'b'"):
        CsvSource([path], {"column_types": {"b": "int8"}}).schema()


def test_an_empty_glob_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"none-\*\.csv"):
        CsvSource([str(tmp_path / "none-*.csv")]).schema()

"""SVMLight: counting rows and values by bytes, parsing all lines at once, and saying which line is wrong."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.connector import DataConnector
from shardfit.errors import (
    ChangedDataError,
    InvalidArgumentError,
    InvalidValueError,
    SchemaMismatchError,
    UnknownParameterError,
)
from shardfit.registry import default_registry
from shardfit.sources import svmlight_planning
from shardfit.sources.svmlight_files import SvmlightOpener, SvmlightSource
from shardfit.sources.svmlight_planning import pieces_of
from shardfit.sources.svmlight_text import BadLineError, LineScan, parse_line, parse_lines, scan_lines
from shardfit.sparse import SPARSE, features_of
from shardfit.testing.source_kit import check_source

NUMBERS = st.floats(-1e6, 1e6, width=32).map(float)
PAIRS = st.dictionaries(st.integers(0, 40), NUMBERS, max_size=5).map(lambda found: sorted(found.items()))
ROWS = st.lists(st.tuples(NUMBERS, st.integers(0, 9), PAIRS), max_size=6)
BETWEEN = st.sampled_from(["", "", "# only a comment 3:4", "   ", "\t# qid:3"])


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def table_of(rows: list[tuple[float, int, list[tuple[int, float]]]], with_queries: bool) -> pa.Table:
    pairs = [[{"index": index, "value": value} for index, value in pairs] for _, _, pairs in rows]
    columns = {"label": pa.array([row[0] for row in rows], pa.float32())}
    if with_queries:
        columns["qid"] = pa.array([row[1] for row in rows], pa.int64())
    return pa.table({**columns, "features": pa.array(pairs, SPARSE)})


@settings(max_examples=40)
@given(
    rows=ROWS,
    between=st.lists(BETWEEN, min_size=7, max_size=7),
    block=st.integers(1, 200),
    zero_based=st.booleans(),
    with_queries=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    end=st.sampled_from(["", " ", " # a comment: 1:2", " #"]),
    last_newline=st.booleans(),
)
def test_rows_survive_any_division_into_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, int, list[tuple[int, float]]]],
    between: list[str],
    block: int,
    zero_based: bool,
    with_queries: bool,
    newline: str,
    end: str,
    last_newline: bool,
) -> None:
    lines = [between[-1]]
    for (label, query, pairs), gap in zip(rows, between, strict=False):
        words = [repr(label), *([f"qid:{query}"] if with_queries else [])]
        words += [f"{index + (not zero_based)}:{value!r}" for index, value in pairs]
        lines += [" ".join(words) + end, gap]
    text = newline.join(lines) + (newline if last_newline else "")
    path = write(tmp_path_factory.mktemp("svm") / "a.svm", text)
    source = SvmlightSource([path], {"block_bytes": block, "zero_based": zero_based})
    check_source(source, table_of(rows, with_queries and bool(rows)), batch_rows=3)
    values = [index for _, _, pairs in rows for index, _ in pairs]
    assert sum(part.values or 0 for part in source.fragments()) == len(values)
    assert features_of(source.schema().field("features")) == max(values, default=0) + 1


OPTIONS = st.fixed_dictionaries({"zero_based": st.booleans(), "with_queries": st.booleans()})
WORDS = ["1", "-2.5", "1:2", "2:.5", "3:1e3", "0:1", "qid:4", "qid:", "qid:x", "#", ":", "1:", ":2", "1:2:3", "nan"]
SIGNS = ["1:++2", "1:+-2", "1:-+2", "1:+2", "++1", "+1", "1:+", "1:-", "-+1", "+", "+1:2"]


@given(data=st.text(alphabet=list('01259:.-+e# \n\tqid,na"x\r'), max_size=60), options=OPTIONS)
def test_all_lines_at_once_and_line_by_line_agree(data: str, options: dict[str, bool]) -> None:
    check_against_single_lines(data.encode("latin-1"), options)


@given(words=st.lists(st.sampled_from([*WORDS, *SIGNS, "\n", "\n"]), max_size=14), options=OPTIONS)
def test_almost_right_lines_are_told_from_right_ones(words: list[str], options: dict[str, bool]) -> None:
    check_against_single_lines(" ".join(words).encode(), options)


@pytest.mark.parametrize("word", SIGNS)
def test_a_number_has_one_sign(word: str) -> None:
    label = "" if ":" not in word and len(word) > 1 else "1 "
    check_against_single_lines(f"{label}{word}".encode(), {"zero_based": False, "with_queries": False})


def check_against_single_lines(data: bytes, options: dict[str, bool]) -> None:
    place, rows, bad = 0, [], None
    for line in data.split(b"\n"):
        try:
            rows.append(parse_line(line, **options))
        except ValueError:
            bad = place
            break
        place += len(line) + 1
    if bad is not None:
        with pytest.raises(BadLineError) as caught:
            parse_lines(data, **options)
        assert caught.value.offset == bad
        return
    parsed = parse_lines(data, **options)
    kept = [row for row in rows if row is not None]
    with np.errstate(over="ignore"):
        labels = np.array([row[0] for row in kept], np.float32)
        values = np.array([value for row in kept for _, value in row[2]], np.float32)
    np.testing.assert_array_equal(parsed.labels, labels)
    assert (None if parsed.queries is None else parsed.queries.tolist()) == (
        [row[1] for row in kept] if options["with_queries"] else None
    )
    assert parsed.offsets.tolist() == np.cumsum([0, *(len(row[2]) for row in kept)]).tolist()
    assert parsed.indices.tolist() == [index for row in kept for index, _ in row[2]]
    np.testing.assert_array_equal(parsed.values, values)
    scan = scan_lines(data)
    queries = len(kept) if options["with_queries"] else 0
    largest = int(parsed.indices.max(initial=-1)) + (not options["zero_based"] and len(parsed.indices) > 0)
    assert scan == LineScan(len(kept), len(parsed.indices), queries, largest)


@given(data=st.binary(max_size=60).map(lambda raw: bytes(b"a\n:"[byte % 3] for byte in raw)), size=st.integers(1, 20))
def test_pieces_are_whole_lines(data: bytes, size: int) -> None:
    def read(_: int) -> bytes:
        nonlocal place
        place += size
        return data[place - size : place]

    place, found = 0, b""
    for start, lines in pieces_of(read):
        assert start == len(found)
        assert lines
        found += lines
        assert lines.endswith(b"\n") or found == data
    assert found == data


def test_a_worker_reads_its_range_of_bytes_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", "".join(f"{i} 1:{i} 7:2\n" for i in range(1000)))
    source = SvmlightSource([path], {"block_bytes": 500})
    parts = source.fragments()
    assert len(parts) > 10
    assert all(part.position[1] - part.position[0] < 600 for part in parts)
    assert [a.position[1] for a in parts[:-1]] == [b.position[0] for b in parts[1:]]
    assert len(pickle.dumps(source)) < 2_000


def test_a_compressed_file_is_one_fragment_and_the_plan_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svmlight_planning, "PIECE_BYTES", 7)
    path = write(tmp_path / "a.svm.gz", gzip.compress(b"1 1:2 3:4\n# no row\n0 2:5\n"))
    source = SvmlightSource([path], {"block_bytes": 4})
    assert [(part.rows, part.values) for part in source.fragments()] == [(2, 3)]
    assert "cannot be divided" in source.warnings()[0]
    check_source(source, table_of([(1.0, 0, [(0, 2.0), (2, 4.0)]), (0.0, 0, [(1, 5.0)])], with_queries=False))


@pytest.mark.parametrize("text", [b"1 1:2\n", b"\n1 1:2\n", b"# no row\n1 1:2", b"# no row\n", b""])
@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_row(tmp_path: Path, text: bytes, packed: bool) -> None:
    marked = b"\xef\xbb\xbf" + text
    path = write(tmp_path / ("a.svm.gz" if packed else "a.svm"), gzip.compress(marked) if packed else marked)
    rows = [(1.0, 0, [(0, 2.0)])] if b"1:2" in text else []
    check_source(SvmlightSource([path]), table_of(rows, with_queries=False))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1 3:1 2:1", "the index 2 does not come after the one before it"),
        ("1 2:1 2:1", "the index 2 does not come after the one before it"),
        ("1 -2:1", "the index '-2' is no whole number from 0"),
        ("1 1.5:1", "the index '1.5' is no whole number from 0"),
        ("1 99999999999:1", "the index '99999999999' is no whole number from 0"),
        ("1 0:1", "indices start at 1 unless zero_based=True"),
        ("1 2:x", "the value 'x' is no number"),
        ("1 2:", "the value '' is no number"),
        ("1 2 3:4", "'2' is no index:value"),
        ("yes 2:3", "the label 'yes' is no number"),
        ("2:3 4:5", "the label '2:3' is no number"),
        ("1,3 2:3", "the label '1,3' is no number"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_line_is_named(tmp_path: Path, line: str, why: str, packed: bool) -> None:
    text = "1 1:1\n# comment\n0 1:2 2:3\n" + line + "\n1 1:1\n"
    name = tmp_path / ("a.svm.gz" if packed else "a.svm")
    source = SvmlightSource([write(name, gzip.compress(text.encode()) if packed else text)])
    (part,) = source.fragments()
    with pytest.raises(InvalidValueError) as caught:
        list(source.read(part, ["label"], 0, part.rows, 10))
    assert f"parsing line 4 of {part.uri!r}, at byte 26" in str(caught.value)
    assert why in str(caught.value)


def test_an_index_beyond_the_features_is_said_before_anything_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", "1 1:1 7:2\n")
    assert SvmlightSource([path], {"features": 7}).schema().field("features").metadata == {b"features": b"7"}
    with pytest.raises(InvalidValueError, match=r"with features=6: found the index 7 from byte 0 on, where 6 is"):
        SvmlightSource([path], {"features": 6}).fragments()
    with pytest.raises(InvalidValueError, match="where 6 is the largest"):
        SvmlightSource([path], {"features": 7, "zero_based": True}).fragments()


def test_either_all_rows_have_a_query_or_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", "1 qid:1 1:1\n0 1:1\n")
    with pytest.raises(SchemaMismatchError, match=r"1 of 2 rows have one\. Give each row a qid"):
        SvmlightSource([path]).schema()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"zero_base": True}, UnknownParameterError, "Did you mean 'zero_based'"),
        ({"features": 0}, InvalidArgumentError, "found 0. It must be a whole number from 1"),
        ({"features": "9"}, InvalidArgumentError, "found '9'"),
        ({"zero_based": 1}, InvalidArgumentError, "found 1. It must be True or False"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace(".", r"\.")):
        SvmlightOpener().open("a.svm", options)


def test_files_are_found_by_suffix_and_a_changed_one_is_an_error(tmp_path: Path) -> None:
    for name in ("b.svm", "a.libsvm", "notes.txt"):
        write(tmp_path / name, f"{len(name)} 1:1\n")
    connector = DataConnector.from_svmlight(tmp_path, features=4)
    assert connector.to_arrow()["label"].to_pylist() == [8.0, 5.0]
    assert DataConnector.of(str(tmp_path / "b.svm")).count_rows() == 1
    source = connector.resolve(default_registry())
    part = source.fragments()[0]
    write(tmp_path / "a.libsvm", "1 1:1\n1 1:1\n")
    with pytest.raises(ChangedDataError):
        list(source.read(part, ["label"], 0, 1, 10))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert not SvmlightSource([write(tmp_path / "a.svm", "# nothing\n\n")]).fragments()

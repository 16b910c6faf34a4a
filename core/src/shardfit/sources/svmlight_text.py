"""Parsing SVMLight text: all the lines of some bytes at once, and line by line to say what is wrong with one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

Bytes = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

_BLANK, _NEWLINE, _COLON, _HASH = 32, 10, 58, 35
_QID = b"qid:"
_QID_WORD = re.compile(rb"(?<![^\x00-\x20])qid:(?=[^\x00-\x20])")
_WORD = re.compile(rb"[^\x00-\x20]+")
_QID_WORD = re.compile(rb"(?<![^\x00-\x20])qid:(?=[^\x00-\x20])")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf(inity)?)", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]+")
_MOST_INDEX = 2**31 - 1
_SHOWN = 60


class BadLineError(ValueError):
    """A line that is no SVMLight.

    Args:
        why: What is wrong with it.
        offset: Where in the bytes it starts.
    """

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why, offset)
        self.why = why
        self.offset = offset


@dataclass(frozen=True, eq=False, slots=True)
class ParsedLines:
    """The rows of some lines.

    Args:
        labels: float32, shape [rows].
        queries: int64, shape [rows], or None where lines have no `qid`.
        offsets: Where in `indices` and `values` each row starts; int64, shape [rows + 1].
        indices: From 0; int32, shape [values].
        values: float32, shape [values].
    """

    labels: Float32Array
    queries: Int64Array | None
    offsets: Int64Array
    indices: npt.NDArray[np.int32]
    values: Float32Array


class ParsedLine(NamedTuple):
    """One row.

    Args:
        label: Of the row.
        query: Its `qid`, or None.
        pairs: Index from 0 and value of each.
    """

    label: float
    query: int | None
    pairs: list[tuple[int, float]]


class LineScan(NamedTuple):
    """What some lines hold, counted without parsing them.

    Args:
        rows: Lines that are neither empty nor comments.
        values: Pairs of index and value.
        queries: Rows that have a `qid`.
        largest: Largest index, as it is written; -1 where there is none. Right where indices ascend.
    """

    rows: int = 0
    values: int = 0
    queries: int = 0
    largest: int = -1

    def __add__(self, other: object) -> LineScan:
        if not isinstance(other, LineScan):
            return NotImplemented
        counts = (self.rows + other.rows, self.values + other.values, self.queries + other.queries)
        return LineScan(*counts, max(self.largest, other.largest))


def scan_lines(data: bytes) -> LineScan:
    """Return what whole lines hold."""
    content, queries = _plain(data)
    newlines = np.flatnonzero(content == _NEWLINE)
    starts, _ = _words(content > _BLANK)
    if not len(starts):
        return LineScan()
    rows = 1 + int(np.count_nonzero(np.diff(np.searchsorted(newlines, starts))))
    colons = np.flatnonzero(content == _COLON)
    # Indices ascend, so that the last one of each line is its largest.
    ends = np.append(newlines, len(content))
    last = np.unique(np.searchsorted(colons, ends) - 1)
    return LineScan(rows, len(colons), len(queries), _largest_before(content, colons[last[last >= 0]]))


def parse_lines(data: bytes, *, zero_based: bool, with_queries: bool) -> ParsedLines:
    """Return the rows of whole lines; empty lines and comments are none.

    Args:
        data: Text; the last line needs no newline.
        zero_based: Whether indices start at 0 rather than 1.
        with_queries: Whether each row has a `qid`; else none may have one.

    Raises:
        BadLineError: A line cannot be parsed.
    """
    try:
        parsed = _parse(data, zero_based, with_queries)
    except (pa.ArrowException, OverflowError):
        parsed = None
    if parsed is None:
        raise _first_bad_line(data, zero_based, with_queries)
    return parsed


def parse_line(line: bytes, *, zero_based: bool, with_queries: bool) -> ParsedLine | None:
    """Return the row of one line, or None where it is empty or a comment. Slow; says what is wrong.

    Raises:
        ValueError: It cannot be parsed; says why.
    """
    words = [word.decode("latin-1") for word in _WORD.findall(line.partition(b"#")[0])]
    if not words:
        return None
    label, *pairs = words
    if not _NUMBER.fullmatch(label):
        raise ValueError(f"the label {label[:_SHOWN]!r} is no number")
    query = None
    if pairs and pairs[0].startswith("qid:"):
        query = _whole(pairs.pop(0).removeprefix("qid:"), "qid")
    if (query is not None) != with_queries:
        raise ValueError(
            "it has a qid and other rows have none" if query is not None else "it has no qid and other rows have one"
        )
    found: list[tuple[int, float]] = []
    for pair in pairs:
        index, colon, value = pair.partition(":")
        if not colon:
            raise ValueError(f"{pair[:_SHOWN]!r} is no index:value")
        number = _whole(index, "index") - (not zero_based)
        if number < 0:
            raise ValueError("it has the index 0, and indices start at 1 unless zero_based=True")
        if found and number <= found[-1][0]:
            raise ValueError(f"the index {index} does not come after the one before it")
        if not _NUMBER.fullmatch(value):
            raise ValueError(f"the value {value[:_SHOWN]!r} is no number")
        found.append((number, float(value)))
    return ParsedLine(float(label), query, found)


def _whole(text: str, what: str) -> int:
    if not _WHOLE.fullmatch(text) or int(text) > _MOST_INDEX:
        raise ValueError(f"the {what} {text[:_SHOWN]!r} is no whole number from 0 to {_MOST_INDEX}")
    return int(text)


def _parse(data: bytes, zero_based: bool, with_queries: bool) -> ParsedLines | None:
    """Return the rows, or None where something is wrong."""
    content, queries = _plain(data)
    word = (content > _BLANK) & (content != _COLON)
    starts, ends = _words(word)
    colons = np.append(content, np.uint8(_NEWLINE)) == _COLON
    is_index, is_value = colons[ends], (starts > 0) & colons[starts - 1]
    lone = ~(is_index | is_value)
    lines = np.searchsorted(np.flatnonzero(content == _NEWLINE), starts)
    first = np.ones(len(starts), dtype=bool)
    first[1:] = lines[1:] != lines[:-1]
    labels = np.flatnonzero(first)
    asked = np.searchsorted(starts, queries)
    shapely = (
        np.count_nonzero(colons) == np.count_nonzero(is_index) == np.count_nonzero(is_value)
        and not (is_index & is_value).any()
        and lone[labels].all()
        and np.count_nonzero(lone) == len(labels) + len(queries)
        and len(queries) == (len(labels) if with_queries else 0)
        and (not with_queries or np.array_equal(asked, labels + 1))
    )
    if not shapely:
        return None
    must_be_whole = is_index.copy()
    must_be_whole[asked] = True
    if not _digits_only(content, starts, ends, must_be_whole):
        return None
    numbers = _numbers(np.where(word, content, np.uint8(_NEWLINE)))
    if len(numbers) != len(starts):
        return None
    indices = numbers[is_index]
    if numbers[must_be_whole].max(initial=0) > _MOST_INDEX:
        return None
    indices = indices.astype(np.int64) - (not zero_based)
    row = lines[is_index]
    if (indices < 0).any() or ((indices[1:] <= indices[:-1]) & (row[1:] == row[:-1])).any():
        return None
    # Each label is one word; the pairs before it are two words each, a query is one.
    offsets = (np.append(labels, len(starts)) - np.arange(len(labels) + 1) * (1 + with_queries)) // 2
    with np.errstate(over="ignore"):
        values, targets = numbers[is_value].astype(np.float32), numbers[labels].astype(np.float32)
    return ParsedLines(
        targets, numbers[asked].astype(np.int64) if with_queries else None, offsets, indices.astype(np.int32), values
    )


def _digits_only(content: Bytes, starts: Int64Array, ends: Int64Array, which: npt.NDArray[np.bool_]) -> bool:
    """Return whether some of the words have nothing but digits."""
    others = np.cumsum((content < ord("0")) | (content > ord("9")), dtype=np.int32)
    counts = np.concatenate([np.zeros(1, dtype=np.int32), others])
    return bool((counts[starts[which]] == counts[ends[which]]).all())


def _numbers(text: Bytes) -> npt.NDArray[np.float64]:
    """Return the numbers that stand between newlines."""
    if not (text != _NEWLINE).any():
        return np.empty(0, dtype=np.float64)
    table: Any = pacsv.read_csv(
        pa.BufferReader(text.tobytes() + b"\n"),
        pacsv.ReadOptions(column_names=["number"], block_size=len(text) + 2, use_threads=False),
        pacsv.ParseOptions(quote_char=False),
        pacsv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[]),
    )
    numbers: npt.NDArray[np.float64] = table.column(0).to_numpy()
    return numbers


def _plain(data: bytes) -> tuple[Bytes, Int64Array]:
    """Return the bytes without comments and `qid:`, for which there are blanks, and where the queries stand."""
    content = np.frombuffer(data, dtype=np.uint8)
    nowhere = np.empty(0, dtype=np.int64)
    if b"#" in data:
        content = _without_comments(content)
        data = content.tobytes()
    if _QID not in data:
        return content, nowhere
    found = np.array([match.start() for match in _QID_WORD.finditer(data)], dtype=np.int64)
    content = content.copy()
    for i in range(len(_QID)):
        content[found + i] = _BLANK
    return content, found + len(_QID)


def _without_comments(content: Bytes) -> Bytes:
    hashes, newlines = np.flatnonzero(content == _HASH), np.flatnonzero(content == _NEWLINE)
    lines, first = np.unique(np.searchsorted(newlines, hashes), return_index=True)
    change = np.zeros(len(content) + 1, dtype=np.int8)
    change[hashes[first]] = 1
    change[np.append(newlines, len(content))[lines]] = -1
    return np.where(np.cumsum(change[:-1], dtype=np.int8) > 0, np.uint8(_BLANK), content)


def _words(word: npt.NDArray[np.bool_]) -> tuple[Int64Array, Int64Array]:
    """Return where runs of true start, and where they end."""
    edges = np.flatnonzero(np.diff(word, prepend=False, append=False))
    return edges[::2], edges[1::2]


def _largest_before(content: Bytes, colons: Int64Array) -> int:
    """Return the largest whole number that stands before one of some colons, or -1."""
    numbers = np.zeros(len(colons), dtype=np.int64)
    reading, found = np.ones(len(colons), dtype=bool), np.zeros(len(colons), dtype=bool)
    for power in range(10):
        place = colons - 1 - power
        digit = content[np.maximum(place, 0)].astype(np.int64) - ord("0")
        reading &= (place >= 0) & (digit >= 0) & (digit <= 9)
        found |= reading
        numbers += np.where(reading, digit * 10**power, 0)
    return int(numbers[found].max(initial=-1))


def _first_bad_line(data: bytes, zero_based: bool, with_queries: bool) -> BadLineError:
    offset = 0
    for line in data.split(b"\n"):
        try:
            parse_line(line, zero_based=zero_based, with_queries=with_queries)
        except ValueError as error:
            return BadLineError(str(error), offset)
        offset += len(line) + 1
    return BadLineError("a number in or after it cannot be read")

"""Planning CSV files on the driver: what the columns are, where the rows start, and how many there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pacsv

from shardfit.errors import SchemaMismatchError
from shardfit.source import Fragment
from shardfit.sources.csv_options import CsvOptions
from shardfit.sources.csv_reading import infer_schema, unreadable
from shardfit.sources.csv_scan import BlockScan, scan_range
from shardfit.sources.file_access import FileAccess, ListedFile, version_with_tag
from shardfit.sources.file_source import Listing
from shardfit.sources.text_files import COMPRESSED, SCAN_THREADS, WHOLE_FILE, first_byte

_LONGEST_PREAMBLE = 1 << 20


class _Text(NamedTuple):
    """One file: its version, its columns, and the first byte of its text (WHOLE_FILE where it cannot be divided)."""

    file: ListedFile
    version: str
    names: tuple[str, ...]
    first: int


class _Block(NamedTuple):
    text: _Text
    start: int
    stop: int


def list_csv(access: FileAccess, files: Sequence[ListedFile], options: CsvOptions) -> Listing:
    """Return the schema and fragments of CSV files, each of them read once, by several threads.

    Names are those of the first file; types fit samples of all. `position` of a fragment is the first byte, the byte
    after the last (WHOLE_FILE where the file cannot be divided), whether values hold newlines, and then, for a file
    with the columns in another order, their places in the schema.

    Raises:
        UnreadableSourceError: A file cannot be read or parsed; says which.
        SchemaMismatchError: The header of a file differs; says in what.
        UnknownColumnError: A type is fixed for a column that does not exist.
    """
    pool = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="shardfit-csv")
    try:
        texts = list(pool.map(lambda file: _open_text(access, file, options), files))
        orders = {text.file.uri: _column_order(texts[0], text) for text in texts}
        blocks = [block for text in texts for block in _blocks(text, options.block_bytes)]
        scans = pool.map(lambda block: _scan_block(access, block, options), blocks)
        by_file = groupby(zip(blocks, scans, strict=True), key=lambda pair: pair[0].text.file.uri)
        listed = {uri: _divide(list(pairs), options, orders[uri]) for uri, pairs in by_file}
        whole = [text for text in texts if listed.get(text.file.uri) is None]
        listed |= pool.map(lambda text: _count_whole(access, text, options, orders[text.file.uri]), whole)
        fragments = tuple(part for text in texts for part in listed[text.file.uri] or ())
    finally:
        pool.shutdown(cancel_futures=True)
    schema = infer_schema(access, fragments, texts[0].names, options)
    return Listing(schema, fragments, _warnings([text for text in whole if text.file.size]))


def _open_text(access: FileAccess, file: ListedFile, options: CsvOptions) -> _Text:
    try:
        with access.open(file.uri) as handle:
            version = version_with_tag(file.version, handle)
            divisible = options.divisible and not file.uri.lower().endswith(COMPRESSED)
            first = _first_row(handle, options) if divisible else WHOLE_FILE
        given = options.column_names or None
        if given and not file.size:
            return _Text(file, version, tuple(given), first)
        return _Text(file, version, _column_names(access, file, options), first)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(repr(file.uri), error) from error


def _column_names(access: FileAccess, file: ListedFile, options: CsvOptions) -> tuple[str, ...]:
    read = options.read_options(options.column_names or None, whole_file=True)
    parse = options.parse_options(newlines_in_values=True)
    try:
        with access.open_stream(file.uri) as stream, pacsv.open_csv(stream, read, parse) as reader:
            return tuple(reader.schema.names)
    except pa.ArrowInvalid:
        # A header that no newline ends is no row to pyarrow.
        with access.open_stream(file.uri) as stream:
            beginning = stream.read(_LONGEST_PREAMBLE)
        if len(beginning) == _LONGEST_PREAMBLE or beginning.endswith((b"\n", b"\r")):
            raise
        with pacsv.open_csv(pa.BufferReader(beginning + b"\n"), read, parse) as reader:
            return tuple(reader.schema.names)


def _first_row(handle: pa.NativeFile, options: CsvOptions) -> int:
    first = first_byte(handle)
    if options.skip_rows:
        lines = list(re.finditer(rb"\r\n|\r|\n", handle.read_at(_LONGEST_PREAMBLE, first)))[: options.skip_rows]
        first += lines[-1].end() if lines else 0
    return first


def _column_order(expected: _Text, text: _Text) -> tuple[int, ...]:
    """Return where the columns of a file stand in the schema; nothing where they stand in the same places."""
    if text.names == expected.names:
        return ()
    stray = sorted(set(text.names) ^ set(expected.names))
    if stray or len(text.names) != len(expected.names):
        column = stray[0] if stray else text.names[-1]
        raise SchemaMismatchError(
            f"comparing column {column!r} of {text.file.uri!r} with the other files",
            f"the file has {list(text.names)!r}, {expected.file.uri!r} has {list(expected.names)!r}",
            "Write the files with the same columns, or pass only those that agree.",
        )
    return tuple(expected.names.index(name) for name in text.names)


def _blocks(text: _Text, block_bytes: int) -> Iterator[_Block]:
    if text.first != WHOLE_FILE:
        for start in range(text.first, text.file.size, block_bytes):
            yield _Block(text, start, min(start + block_bytes, text.file.size))


def _scan_block(access: FileAccess, block: _Block, options: CsvOptions) -> BlockScan:
    with access.open(block.text.file.uri) as file:
        return scan_range(
            file.read_at, block.text.first, block.start, block.stop, options.delimiter, options.quote_char
        )


def _divide(
    pairs: Sequence[tuple[_Block, BlockScan]], options: CsvOptions, order: tuple[int, ...]
) -> tuple[Fragment, ...] | None:
    """Return the fragments of one file, or None where its quotes do not tell where its rows start."""
    text, quotes, found = pairs[0][0].text, 0, []
    for _, scan in pairs:
        found.append(scan.rows(quotes))
        quotes += scan.quotes
    if quotes % 2 or any(rows.stray_quote for rows in found):
        return None
    newlines = int(any(rows.quoted_newline for rows in found))
    pieces = [rows for rows in found if rows.count]
    ends = [rows.starts[0] for rows in pieces[1:]] + [text.file.size]
    fragments: list[Fragment] = []
    for number, (rows, end) in enumerate(zip(pieces, ends, strict=True)):
        header = options.has_header and number == 0
        count, starts = rows.count - header, rows.starts[int(header) :]
        if count:
            position = (starts[0], end, newlines, *order)
            size = end - starts[0]
            fragments.append(Fragment(text.file.uri, len(fragments), count, size, text.version, position))
    return tuple(fragments)


def _count_whole(
    access: FileAccess, text: _Text, options: CsvOptions, order: tuple[int, ...]
) -> tuple[str, tuple[Fragment, ...]]:
    if not text.file.size:
        return text.file.uri, ()
    read = options.read_options(options.column_names or None, whole_file=True)
    convert = options.convert_options({text.names[0]: pa.string()}, text.names[:1])
    try:
        with (
            access.open_stream(text.file.uri) as stream,
            pacsv.open_csv(stream, read, options.parse_options(newlines_in_values=True), convert) as batches,
        ):
            rows = sum(batch.num_rows for batch in batches)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(repr(text.file.uri), error) from error
    return text.file.uri, (Fragment(text.file.uri, 0, rows, None, text.version, (0, WHOLE_FILE, 1, *order)),)


def _warnings(whole: Sequence[_Text]) -> tuple[str, ...]:
    if not whole:
        return ()
    first = whole[0].file.uri
    return (
        f"{len(whole)} CSV file(s), such as {first!r}, cannot be divided: compressed, or with quotes inside values; "
        "each is one fragment, and its bytes are parsed by one worker from the start",
    )

"""Planning SVMLight files on the driver: where lines start, how many rows and values there are, the largest index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from shardfit.errors import InvalidValueError, SchemaMismatchError, UnreadableSourceError
from shardfit.source import Fragment
from shardfit.sources.file_access import FileAccess, ListedFile, version_with_tag
from shardfit.sources.file_source import Listing
from shardfit.sources.svmlight_text import LineScan, scan_lines
from shardfit.sources.text_files import BYTE_ORDER_MARK, COMPRESSED, SCAN_THREADS, WHOLE_FILE, first_byte
from shardfit.sparse import ENTRY_BYTES, MOST_FEATURES, SPARSE, with_features

LABEL, QUERY, FEATURES = "label", "qid", "features"
PIECE_BYTES = 4 << 20
_SEARCH_BYTES = 1 << 16
_ROW_BYTES = 16


class _Part(NamedTuple):
    """Some bytes of a file, from the start of a line to the start of another."""

    file: ListedFile
    version: str
    start: int
    stop: int
    scan: LineScan = LineScan()


def list_svmlight(
    access: FileAccess, files: Sequence[ListedFile], features: int | None, zero_based: bool, block_bytes: int
) -> Listing:
    """Return the schema and fragments of SVMLight files, each of them read once, by several threads.

    `position` of a fragment is the first byte and the byte after the last, WHOLE_FILE where the file cannot be divided.

    Args:
        access: How to reach the files.
        files: In row order.
        features: How many the user says that there are, or None to find out.
        zero_based: Whether indices start at 0 rather than 1.
        block_bytes: About the size of a fragment.

    Raises:
        UnreadableSourceError: A file cannot be read.
        InvalidValueError: An index is larger than `features` allows; says which, and in which file.
        SchemaMismatchError: Some rows have a `qid` and others have none.
    """
    pool = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="shardfit-svmlight")
    try:
        parts = [part for found in pool.map(lambda file: _divide(access, file, block_bytes), files) for part in found]
        scanned = list(pool.map(lambda part: _scan(access, part), parts))
    finally:
        pool.shutdown(cancel_futures=True)
    total = sum((part.scan for part in scanned), LineScan())
    found = total.largest + zero_based
    if features is not None and found > features:
        raise _too_wide(scanned, features, zero_based)
    if total.queries not in (0, total.rows):
        raise _some_queries(scanned)
    whole = [part for part in scanned if part.stop == WHOLE_FILE]
    # A larger index is no number that whoever parses its line lets pass.
    width = features or min(max(found, 1), MOST_FEATURES)
    return Listing(_schema(width, total.queries > 0), _fragments(scanned), _warnings(whole))


def pieces_of(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines of a stream, some MiB at a time, each with the place of its first byte.

    Args:
        read: Returns the next so many bytes, fewer at the end.
    """
    place, waiting = 0, list[bytes]()
    while data := read(PIECE_BYTES):
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            waiting.append(data)
            continue
        lines = b"".join([*waiting, whole, newline])
        yield place, lines
        place, waiting = place + len(lines), [rest] if rest else []
    if waiting:
        yield place, b"".join(waiting)


def without_mark(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return how to read text with blanks for a byte order mark, so that bytes keep their places."""
    begun = False

    def blanked(size: int) -> bytes:
        nonlocal begun
        data = read(size)
        if not begun and data.startswith(BYTE_ORDER_MARK):
            data = b" " * len(BYTE_ORDER_MARK) + data[len(BYTE_ORDER_MARK) :]
        begun = True
        return data

    return blanked


def unreadable(what: str, error: object) -> UnreadableSourceError:
    """Return the error for a file that cannot be read."""
    return UnreadableSourceError(f"reading {what}", str(error) or type(error).__name__, "Check the file.")


def _divide(access: FileAccess, file: ListedFile, block_bytes: int) -> list[_Part]:
    try:
        with access.open(file.uri) as handle:
            version = version_with_tag(file.version, handle)
            if file.uri.lower().endswith(COMPRESSED):
                return [_Part(file, version, 0, WHOLE_FILE)] if file.size else []
            first = first_byte(handle)
            places = range(first + block_bytes, file.size, block_bytes)
            cuts = [first, *(_next_line(handle, place, file.size) for place in places), file.size]
    except (OSError, pa.ArrowException) as error:
        raise unreadable(repr(file.uri), error) from error
    return [_Part(file, version, start, stop) for start, stop in pairwise(cuts) if start < stop]


def _next_line(handle: pa.NativeFile, place: int, size: int) -> int:
    """Return where the first line starts that starts at `place` or after it."""
    for start in range(place - 1, size, _SEARCH_BYTES):
        found: int = handle.read_at(min(_SEARCH_BYTES, size - start), start).find(b"\n")
        if found >= 0:
            return start + found + 1
    return size


def _scan(access: FileAccess, part: _Part) -> _Part:
    try:
        if part.stop == WHOLE_FILE:
            with access.open_stream(part.file.uri) as stream:
                return part._replace(scan=_total(without_mark(stream.read)))
        with access.open(part.file.uri) as handle:
            return part._replace(scan=_total(_reader(handle, part.start, part.stop)))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(repr(part.file.uri), error) from error


def _total(read: Callable[[int], bytes]) -> LineScan:
    return reduce(LineScan.__add__, (scan_lines(lines) for _, lines in pieces_of(read)), LineScan())


def _reader(handle: pa.NativeFile, start: int, stop: int) -> Callable[[int], bytes]:
    place = start

    def read(size: int) -> bytes:
        nonlocal place
        data: bytes = handle.read_at(min(size, stop - place), place)
        place += len(data)
        return data

    return read


def _schema(features: int, with_queries: bool) -> pa.Schema:
    queries = [pa.field(QUERY, pa.int64())] if with_queries else []
    sparse = with_features(pa.field(FEATURES, SPARSE), features)
    return pa.schema([pa.field(LABEL, pa.float32()), *queries, sparse])


def _fragments(parts: Sequence[_Part]) -> tuple[Fragment, ...]:
    fragments: list[Fragment] = []
    for part in parts:
        if part.scan.rows:
            index = fragments[-1].index + 1 if fragments and fragments[-1].uri == part.file.uri else 0
            size = ENTRY_BYTES * part.scan.values + _ROW_BYTES * part.scan.rows
            place = (part.start, part.stop)
            fragments.append(
                Fragment(part.file.uri, index, part.scan.rows, size, part.version, place, part.scan.values)
            )
    return tuple(fragments)


def _too_wide(parts: Sequence[_Part], features: int, zero_based: bool) -> InvalidValueError:
    part = next(part for part in parts if part.scan.largest + zero_based > features)
    largest = features - zero_based
    return InvalidValueError(
        f"reading {part.file.uri!r} with features={features!r}",
        f"found the index {part.scan.largest} from byte {part.start} on, where {largest} is the largest",
        "Raise features, or check zero_based: indices start at 1 unless it is True.",
    )


def _some_queries(parts: Sequence[_Part]) -> SchemaMismatchError:
    part = next((part for part in parts if part.scan.queries not in (0, part.scan.rows)), parts[0])
    having = sum(part.scan.queries for part in parts)
    return SchemaMismatchError(
        f"looking for qid in {part.file.uri!r}",
        f"{having} of {sum(part.scan.rows for part in parts)} rows have one",
        "Give each row a qid, or none.",
    )


def _warnings(whole: Sequence[_Part]) -> tuple[str, ...]:
    if not whole:
        return ()
    return (
        f"{len(whole)} SVMLight file(s), such as {whole[0].file.uri!r}, are compressed and cannot be divided; each is "
        "one fragment, and its bytes are parsed by one worker from the start",
    )

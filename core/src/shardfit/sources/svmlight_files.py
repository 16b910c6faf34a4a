"""SVMLight files on any storage, as a source: a fragment is a range of bytes, or a whole compressed file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from shardfit.errors import InvalidArgumentError, InvalidValueError, UnknownParameterError, UnreadableSourceError
from shardfit.source import Fragment
from shardfit.sources.file_access import FileAccess, ListedFile
from shardfit.sources.file_source import FileOpener, FileSource, Listing
from shardfit.sources.svmlight_planning import LABEL, QUERY, list_svmlight, pieces_of, unreadable, without_mark
from shardfit.sources.svmlight_text import BadLineError, ParsedLines, parse_lines
from shardfit.sources.text_files import WHOLE_FILE, with_compressed
from shardfit.sparse import MOST_FEATURES, SPARSE

_OPTIONS = ("features", "zero_based", "block_bytes")
_STORAGE_OPTIONS = frozenset({"storage_options", "filesystem"})


class SvmlightSource(FileSource):
    """Rows of SVMLight files, sorted by file: a label, perhaps a `qid`, and sparse features.

    The files are scanned once, on the driver, to count rows, values and features and to find where lines start; a
    worker then reads its range of bytes only. Compressed files are one fragment each.

    Args:
        paths: As for `DataConnector.from_svmlight`.
        options: `features`, `zero_based`, `block_bytes` (about the size of a fragment), `storage_options` and
            `filesystem`, all of them optional.
    """

    format = "SVMLight"
    suffixes = with_compressed((".svm", ".svmlight", ".libsvm"))

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        given = _checked(options or {})
        super().__init__(paths, {key: value for key, value in given.items() if key in _STORAGE_OPTIONS})
        self._features: int | None = given.get("features")
        self._zero_based = bool(given.get("zero_based", False))
        self._block_bytes = int(given.get("block_bytes", 16 << 20))

    def _list_files(self, access: FileAccess, files: Sequence[ListedFile]) -> Listing:
        return list_svmlight(access, files, self._features, self._zero_based, self._block_bytes)

    @contextmanager
    def _open(
        self, access: FileAccess, fragment: Fragment, columns: pa.Schema, batch_rows: int
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        with _opened(access, fragment) as read:
            yield (_records(rows, columns) for rows in self._parse(access, fragment, read))

    def _parse(self, access: FileAccess, fragment: Fragment, read: Callable[[int], bytes]) -> Iterator[ParsedLines]:
        with_queries = QUERY in self.schema().names
        for place, lines in pieces_of(read):
            try:
                rows = parse_lines(lines, zero_based=self._zero_based, with_queries=with_queries)
            except BadLineError as error:
                raise _bad_line(access, fragment, place + error.offset, error.why) from error
            if len(rows.labels):
                yield rows

    def _unreadable(self, fragment: Fragment, columns: Sequence[str], error: object) -> UnreadableSourceError:
        return unreadable(str(fragment), error)


class SvmlightOpener(FileOpener):
    """Opens paths that end in `.svm`, `.svmlight` or `.libsvm`, compressed ones as well."""

    source = SvmlightSource


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in options.items():
        if key in _STORAGE_OPTIONS:
            continue
        if key not in _OPTIONS:
            near = get_close_matches(key, _OPTIONS, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(_OPTIONS)}."
            raise UnknownParameterError("reading the options of an SVMLight dataset", f"found {key!r}", advice)
        if key == "zero_based":
            good, wanted = isinstance(value, bool), "True or False"
        else:
            number = hasattr(value, "__index__") and not isinstance(value, bool)
            good, wanted = number and 1 <= value <= MOST_FEATURES, f"a whole number from 1 to {MOST_FEATURES:,}"
            good, wanted = good or (key == "features" and value is None), wanted
        if not good:
            raise InvalidArgumentError(
                f"reading the SVMLight option {key!r}", f"found {value!r}", f"It must be {wanted}."
            )
    return options


@contextmanager
def _opened(access: FileAccess, fragment: Fragment) -> Iterator[Callable[[int], bytes]]:
    start, stop = fragment.position
    with access.open_planned(fragment) as file:
        text = None if stop == WHOLE_FILE else io.BytesIO(file.read_at(stop - start, start))
    with text or access.open_stream(fragment.uri) as stream:
        # Ranges of bytes begin after it.
        yield stream.read if text else without_mark(stream.read)


def _records(rows: ParsedLines, wanted: pa.Schema) -> pa.RecordBatch:
    def column(name: str) -> pa.Array:
        if name == LABEL:
            return pa.array(rows.labels)
        if name == QUERY:
            return pa.array(rows.queries)
        entries = pa.StructArray.from_arrays(
            [pa.array(rows.indices), pa.array(rows.values)], fields=list(SPARSE.value_type)
        )
        return pa.ListArray.from_arrays(pa.array(rows.offsets, pa.int32()), entries, type=SPARSE)

    if not wanted.names:
        return pa.RecordBatch.from_arrays([pa.array(rows.labels)], [LABEL]).select([])
    return pa.RecordBatch.from_arrays([column(name) for name in wanted.names], schema=wanted)


def _bad_line(access: FileAccess, fragment: Fragment, place: int, why: str) -> InvalidValueError:
    start, stop = fragment.position
    # Bytes of a compressed file are those of its text.
    offset = place + (0 if stop == WHOLE_FILE else start)
    with access.open_stream(fragment.uri) as stream:
        line = 1 + _newlines(stream, offset)
    return InvalidValueError(
        f"parsing line {line} of {fragment.uri!r}, at byte {offset}",
        why,
        "Correct the file; a line is a label, perhaps qid:<number>, and index:value pairs by ascending index.",
    )


def _newlines(stream: pa.NativeFile, stop: int) -> int:
    count = 0
    while stop > 0 and (data := stream.read(min(stop, 1 << 20))):
        count += data.count(b"\n")
        stop -= len(data)
    return count

"""SVMLight files on any storage, as a source: a fragment is a range of bytes, or a whole compressed file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from shardfit.errors import ChangedDataError, InvalidArgumentError, InvalidValueError, UnknownParameterError
from shardfit.redaction import redact_url
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.csv_reading import COMPRESSED, WHOLE_FILE
from shardfit.sources.file_access import FileAccess, changed, version_with_tag
from shardfit.sources.file_listing import has_suffix, list_files, paths_of
from shardfit.sources.row_range import take_rows
from shardfit.sources.schemas import select_columns
from shardfit.sources.svmlight_planning import SvmlightListing, list_svmlight, pieces_of, unreadable, without_mark
from shardfit.sources.svmlight_text import BadLineError, ParsedLines, parse_lines
from shardfit.sparse import MOST_FEATURES, SPARSE, with_features

_TEXT_SUFFIXES = (".svm", ".svmlight", ".libsvm")
SUFFIXES = _TEXT_SUFFIXES + tuple(text + packed for text in _TEXT_SUFFIXES for packed in COMPRESSED)
LABEL, QUERY, FEATURES = "label", "qid", "features"
_OPTIONS = ("features", "zero_based", "block_bytes")
_STORAGE_OPTIONS = frozenset({"storage_options", "filesystem"})


class SvmlightSource(DataSource):
    """Rows of SVMLight files, sorted by file: a label, perhaps a `qid`, and sparse features.

    The files are scanned once, on the driver, to count rows, values and features and to find where lines start; a
    worker then reads its range of bytes only. Compressed files are one fragment each.

    Args:
        paths: As for `DataConnector.from_svmlight`.
        options: `features`, `zero_based`, `block_bytes` (about the size of a fragment), `storage_options` and
            `filesystem`, all of them optional.
    """

    def __init__(self, paths: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        self._paths = tuple(paths)
        given = _checked(options or {})
        self._storage = {key: value for key, value in given.items() if key in _STORAGE_OPTIONS}
        self._features: int | None = given.get("features")
        self._zero_based = bool(given.get("zero_based", False))
        self._block_bytes = int(given.get("block_bytes", 16 << 20))
        self._listing: SvmlightListing | None = None
        self._access: FileAccess | None = None
        self._schema: pa.Schema | None = None

    def schema(self) -> pa.Schema:
        """Return `label`, `qid` where rows have one, and `features`."""
        if self._schema is None:
            listing = self._list()
            queries = [pa.field(QUERY, pa.int64())] if listing.with_queries else []
            features = with_features(pa.field(FEATURES, SPARSE), listing.features)
            self._schema = pa.schema([pa.field(LABEL, pa.float32()), *queries, features])
        return self._schema

    def fragments(self) -> Sequence[Fragment]:
        """Return every range of bytes with its exact counts of rows and values."""
        return self._list().fragments

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment; rows before `start` are parsed and thrown away."""
        access, schema = self._reach(), self.schema()
        wanted = select_columns(schema, tuple(columns))
        access.check_version(fragment)
        parsed = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal parsed
            for rows in self._parse(access, fragment, QUERY in schema.names):
                parsed += len(rows.labels)
                yield _records(rows, wanted)

        try:
            yield from take_rows(batches(), start, stop, batch_rows)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ChangedDataError | MemoryError):
                raise
            access.check_version(fragment)
            raise unreadable(str(fragment), error) from error
        access.check_version(fragment)
        if parsed < stop:
            raise unreadable(str(fragment), f"found {parsed} rows where {fragment.rows} were counted")

    def describe(self) -> str:
        """Return the paths."""
        shown = ", ".join(repr(redact_url(path)) for path in self._paths[:3])
        return f"SVMLight {shown}" + (f" and {len(self._paths) - 3} more" if len(self._paths) > 3 else "")

    def warnings(self) -> tuple[str, ...]:
        """Return which files are read by one worker each because they cannot be divided."""
        return self._list().warnings

    def __getstate__(self) -> dict[str, Any]:
        # Workers are told their fragments: what they need beside is how to reach and parse the files.
        return {**self.__dict__, "_listing": None}

    def _list(self) -> SvmlightListing:
        if self._listing is None:
            self._access, files = list_files(self._paths, SUFFIXES, self._storage)
            self._listing = list_svmlight(self._access, files, self._features, self._zero_based, self._block_bytes)
        return self._listing

    def _reach(self) -> FileAccess:
        if self._access is None:
            self._list()
        return self._access  # type: ignore[return-value]

    def _parse(self, access: FileAccess, fragment: Fragment, with_queries: bool) -> Iterator[ParsedLines]:
        with _opened(access, fragment) as read:
            for place, lines in pieces_of(read):
                try:
                    rows = parse_lines(lines, zero_based=self._zero_based, with_queries=with_queries)
                except BadLineError as error:
                    raise _bad_line(access, fragment, place + error.offset, error.why) from error
                if len(rows.labels):
                    yield rows


class SvmlightOpener:
    """Opens paths that end in `.svm`, `.svmlight` or `.libsvm`, compressed ones as well."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a path or a list of paths."""
        paths = paths_of(data)
        fits = paths is not None and all(has_suffix(path, SUFFIXES) for path in paths)
        return Claim(10, "the suffix of SVMLight files") if fits else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a path or a list of paths; nothing is read yet.

        Args:
            data: A path, folder, glob or URL, or a list of them.
            options: As for `SvmlightSource`.

        Raises:
            UnknownParameterError: There is no such option; suggests the nearest.
            InvalidArgumentError: An option has a value that cannot be used.
        """
        return SvmlightSource(paths_of(data) or (), options)


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
    with access.open(fragment.uri) as file:
        found = version_with_tag(fragment.version.partition(";")[0], file)
        if found != fragment.version:
            raise changed(fragment, found)
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

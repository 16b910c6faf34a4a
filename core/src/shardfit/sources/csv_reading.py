"""Parsing one fragment of a CSV dataset, and finding out which types its columns have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.types as kinds

from shardfit.errors import UnknownColumnError, UnreadableSourceError
from shardfit.source import Fragment
from shardfit.sources.csv_options import CsvOptions
from shardfit.sources.file_access import FileAccess
from shardfit.sources.text_files import WHOLE_FILE

SAMPLES = 8


@contextmanager
def open_fragment(
    access: FileAccess,
    fragment: Fragment,
    names: Sequence[str],
    options: CsvOptions,
    types: Mapping[str, pa.DataType],
    columns: Sequence[str] | None = None,
) -> Iterator[pacsv.CSVStreamingReader]:
    """Open the text of one fragment as a stream of batches.

    Args:
        access: How to reach the file.
        fragment: `position` as `csv_planning.list_csv` makes it.
        names: Every column of the schema, in order.
        options: How the file is written.
        types: Column -> type; others are inferred.
        columns: Which to read, one or more; None means all.

    Raises:
        ChangedDataError: The file is not the one that was planned.
        UnreadableSourceError: The file cannot be opened.
    """
    first, last, newlines, *order = fragment.position
    own_names = [names[i] for i in order] or list(names)
    whole = last == WHOLE_FILE
    with access.open_planned(fragment) as file:
        text = None if whole else pa.BufferReader(file.read_at(last - first, first))
    read = options.read_options(None if whole and options.has_header else own_names, whole)
    convert = options.convert_options(types, columns)
    with (
        text or access.open_stream(fragment.uri) as stream,
        pacsv.open_csv(stream, read, options.parse_options(bool(newlines)), convert) as batches,
    ):
        yield batches


def unreadable(what: str, error: object) -> UnreadableSourceError:
    """Return the error for text that cannot be parsed."""
    return UnreadableSourceError(
        f"parsing {what}",
        str(error) or type(error).__name__,
        "Correct the file, or fix the type of the column with column_types= and what means null with null_values=.",
    )


def infer_schema(
    access: FileAccess, fragments: Sequence[Fragment], names: Sequence[str], options: CsvOptions
) -> pa.Schema:
    """Return the columns with types that fit the beginnings of a few fragments, spread over all of them.

    Args:
        access: How to reach the files.
        fragments: All of them, in order.
        names: Every column.
        options: How the files are written, and which types are fixed.

    Raises:
        UnknownColumnError: A type is fixed for a column that does not exist.
        UnreadableSourceError: A sample cannot be parsed.
    """
    fixed = options.types()
    if unknown := sorted(set(fixed) - set(names)):
        raise UnknownColumnError("reading the CSV option 'column_types'", f"there is no column {unknown[0]!r}")
    count = min(SAMPLES, len(fragments))
    places = sorted({i * (len(fragments) - 1) // max(count - 1, 1) for i in range(count)})
    samples = [_sample_types(access, fragments[i], names, options, fixed) for i in places]
    fields = []
    for name in dict.fromkeys(names):
        kind = fixed.get(name) or _fit_all(sample[name] for sample in samples)
        fields.append(pa.field(name, kind))
    by_name = {field.name: field for field in fields}
    return pa.schema([by_name[name] for name in names])


def _sample_types(
    access: FileAccess, fragment: Fragment, names: Sequence[str], options: CsvOptions, fixed: Mapping[str, pa.DataType]
) -> dict[str, pa.DataType]:
    try:
        with open_fragment(access, fragment, names, options, fixed) as batches:
            return {field.name: field.type for field in batches.schema}
    except pa.ArrowException as error:
        raise unreadable(str(fragment), error) from error


def _fit_all(types: Iterable[pa.DataType]) -> pa.DataType:
    kind = reduce(_fit_both, types, pa.null())
    return pa.float64() if kinds.is_null(kind) else kind


def _fit_both(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return a type whose text covers that of both, as pyarrow infers types."""
    if a == b or kinds.is_null(b):
        return a
    if kinds.is_null(a):
        return b
    if all(kinds.is_integer(kind) or kinds.is_floating(kind) for kind in (a, b)):
        return pa.float64()
    if all(kinds.is_date(kind) or (kinds.is_timestamp(kind) and kind.tz is None) for kind in (a, b)):
        return pa.timestamp("ns") if pa.timestamp("ns") in (a, b) else pa.timestamp("s")
    return pa.binary() if kinds.is_binary(a) or kinds.is_binary(b) else pa.string()

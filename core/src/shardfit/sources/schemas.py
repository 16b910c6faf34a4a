"""One schema for many files: what counts as the same column, and how a batch is brought to it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from shardfit.errors import SchemaMismatchError
from shardfit.sparse import features_of, is_sparse, with_features


def common_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema in the form in which sources promise it.

    Metadata and nullability go, but for the number of features of a sparse column. Dictionaries get int32 indices, as
    files of one dataset choose different widths. String and binary views become large strings and large binaries, which
    more of Arrow's functions accept.
    """
    return pa.schema([_common_field(column) for column in schema])


def common_type(kind: pa.DataType) -> pa.DataType:
    """Return the Arrow type in which sources promise a column of type `kind`; see `common_schema`."""
    if pa.types.is_dictionary(kind):
        return pa.dictionary(pa.int32(), common_type(kind.value_type))
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    return kind


def check_same_columns(expected: pa.Schema, found: pa.Schema, first: str, other: str) -> None:
    """Check that two files agree: the same columns of the same types, in any order.

    Text with 32-bit and with 64-bit offsets counts as the same: which one it is depends on the library that wrote it.

    Args:
        expected: Common schema of the first file.
        found: Common schema of another one.
        first: Name of the first file, for the message.
        other: Name of the other file.

    Raises:
        SchemaMismatchError: Names the file and the column.
    """
    if expected.equals(found):
        return
    wanted = {column.name: column.type for column in expected}
    there = {column.name: column.type for column in found}
    for name, kind in there.items():
        if name not in wanted:
            raise _mismatch(other, name, "the file has it", f"{first!r} does not")
        if _with_wide_offsets(kind) != _with_wide_offsets(wanted[name]):
            raise _mismatch(other, name, f"the type is {kind}", f"{first!r} has {wanted[name]}")
    for name in wanted:
        if name not in there:
            raise _mismatch(other, name, "the file does not have it", f"{first!r} does")
    if len(expected) != len(found):
        raise _mismatch(other, found.names[0], f"the file has {len(found)} columns", f"{first!r} has {len(expected)}")


def join_features(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the first of several schemas, each sparse column with the most features that any of them has."""
    joined = schemas[0]
    for i, column in enumerate(joined):
        if is_sparse(column.type):
            found = [features_of(schema.field(column.name)) for schema in schemas]
            joined = joined.set(i, with_features(column, max((n for n in found if n is not None), default=None)))
    return joined


def conform(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """Return a batch with exactly `columns`, in that order, and of those types; no copy where they fit already."""
    if batch.schema.equals(columns):
        return batch
    arrays = []
    for column in columns:
        array = batch.column(column.name)
        arrays.append(array if array.type == column.type else array.cast(column.type))
    return pa.RecordBatch.from_arrays(arrays, schema=columns) if arrays else batch.select([])


def select_columns(schema: pa.Schema, names: tuple[str, ...]) -> pa.Schema:
    """Return the schema of some columns, in the order of `names`."""
    return pa.schema([schema.field(name) for name in names])


def _common_field(column: pa.Field) -> pa.Field:
    common = pa.field(column.name, common_type(column.type))
    return with_features(common, features_of(column)) if is_sparse(column.type) else common


def _with_wide_offsets(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _with_wide_offsets(kind.value_type))
    if pa.types.is_string(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary(kind) else kind


def _mismatch(other: str, column: str, found: str, expected: str) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"comparing column {column!r} of {other!r} with the other files",
        f"{found}, {expected}",
        "Write the files with one schema, or pass only those that agree.",
    )

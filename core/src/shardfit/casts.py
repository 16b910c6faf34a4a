"""The policy from Arrow types to training columns: typed, recorded, and the same on every worker.

| Arrow type | rule | becomes |
|---|---|---|
| integers, floats, null | `number` | the nearest float32 |
| booleans | `boolean` | 0 and 1 |
| decimals | `decimal` | the nearest float64, then float32 |
| dates | `date` | days since 1970-01-01 |
| timestamps | `timestamp` | seconds since 1970-01-01 UTC; those without a time zone count as UTC |
| times of day | `time` | seconds since midnight |
| durations | `duration` | seconds |
| text, whole numbers, booleans, if in `categorical_cols` | `category` | the position in the sorted `CategoryMap` |
| the group column: any of the above, and text | `group` | never turned into a number |
| lists of (index, value) structs, with XGBoost | `sparse` | float32, and stays sparse |

A dictionary counts as what its values are. Nulls become NaN. All else is refused: text that is not declared
categorical, other lists, structs, binary. A timestamp loses precision: float32 tells present-day seconds apart every
128 s, and in days or any other unit it would be no better, since what is rounded is the relative size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.category_map import CategoryMap, CategoryValue, distinct_categories
from shardfit.columns import check_column
from shardfit.errors import UnsupportedTypeError
from shardfit.sparse import check_features, is_sparse

Float32Array = npt.NDArray[np.float32]
Rule: TypeAlias = Literal[
    "number", "boolean", "decimal", "date", "timestamp", "time", "duration", "category", "group", "sparse"
]

_TIMESTAMP_NOTE = "seconds since 1970-01-01 UTC as float32, which tells present-day times apart every 128 s"
_UNITS_IN_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MILLISECONDS_IN_A_DAY = 86_400_000


_FLOAT32 = np.dtype(np.float32)
_TEXT_BYTES = 24
# No power of two: values of a row would all want the same few lines of the cache.
_COLUMNS_AT_ONCE, _ROWS_AT_ONCE = 64, 6_016


@dataclass(frozen=True, slots=True)
class ColumnCast:
    """How one column becomes float32.

    Args:
        name: Name of the column.
        arrow_type: Its Arrow type, as text.
        rule: The row of the policy that applies.
        note: What is worth knowing about the result, or empty; the plan shows it.
        features: How many features a sparse column has; 0 for others.
    """

    name: str
    arrow_type: str
    rule: Rule
    note: str = ""
    features: int = 0


def plan_casts(
    schema: pa.Schema,
    columns: Sequence[str],
    categorical: Sequence[str] = (),
    group: str | None = None,
    sparse: Sequence[str] = (),
) -> tuple[ColumnCast, ...]:
    """Return how each of `columns` is cast, in their order. Called on the driver.

    Args:
        schema: Columns and types of the data.
        columns: Names, each of them once in the schema.
        categorical: Those that hold categories.
        group: The one that holds query groups, which stays as it is; None if it is a feature, too.
        sparse: Those that may hold sparse features.

    Raises:
        UnknownColumnError: A column does not exist, or exists twice.
        UnsupportedTypeError: A column's type has no rule; says what to do.
    """
    casts = []
    for name in columns:
        check_column(name, schema)
        kind = schema.field(name).type
        if name in sparse and name not in categorical and is_sparse(kind):
            width = check_features(schema.field(name), "the data")
            casts.append(ColumnCast(name, str(kind), "sparse", features=width))
            continue
        rule: Rule = "group" if name == group else "category" if name in categorical else _numeric_rule(name, kind)
        if rule in {"category", "group"}:
            _check_discrete(name, _value_type(kind), rule)
        casts.append(ColumnCast(name, str(kind), rule, _TIMESTAMP_NOTE if rule == "timestamp" else ""))
    return tuple(casts)


def cast_to_float32(array: pa.Array, cast: ColumnCast, categories: CategoryMap | None = None) -> Float32Array:
    """Return a column as float32, shape [rows], with NaN for nulls.

    A float32 column without nulls is returned as a read-only view.

    Args:
        array: The column; of the type of `cast`, or one with the same rule.
        cast: As planned.
        categories: The map of a categorical column.

    Raises:
        UnsupportedTypeError: The array does not fit the cast, or a categorical column comes without its map.
    """
    if cast.rule == "number" and pa.types.is_float32(array.type) and not array.null_count:
        view: Float32Array = _view(array, _FLOAT32)
        view.flags.writeable = False
        return view
    column = np.empty(len(array), dtype=np.float32)
    _fill(column, array, cast, categories)
    return column


def encode_features(
    records: pa.RecordBatch,
    casts: Sequence[ColumnCast],
    categories: Mapping[str, CategoryMap],
) -> Float32Array:
    """Return the columns of `casts` as a matrix: float32, shape [rows, columns], NaN for nulls.

    Args:
        records: Rows that have all the columns of `casts`, found by name.
        casts: One a column of the result, in order.
        categories: Categorical column -> its map.

    Raises:
        UnsupportedTypeError: As for `cast_to_float32`.
    """
    rows = records.num_rows
    matrix = np.empty((rows, len(casts)), dtype=np.float32)
    block = np.empty((min(len(casts), _COLUMNS_AT_ONCE), _ROWS_AT_ONCE), dtype=np.float32)
    for first in range(0, len(casts), _COLUMNS_AT_ONCE):
        some = casts[first : first + _COLUMNS_AT_ONCE]
        columns = [cast_to_float32(records.column(cast.name), cast, categories.get(cast.name)) for cast in some]
        for start in range(0, rows, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, rows)
            for copied, column in zip(block, columns, strict=False):
                copied[: stop - start] = column[start:stop]
            # NumPy transposes what stays in a near cache many times as fast as it fills a column with gaps.
            matrix[start:stop, first : first + len(some)] = block[: len(some), : stop - start].T
    return matrix


def decoded_width(kind: pa.DataType) -> int:
    """Return about how many bytes a value takes once decoded: those of its type, and 24 for text."""
    if pa.types.is_dictionary(kind):
        return 4
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _TEXT_BYTES


def same_categories(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether categories of two types can be equal: both text, both numbers, or both booleans; or one null."""
    kinds = [_value_type(kind) for kind in (one, other)]
    if any(map(pa.types.is_null, kinds)):
        return True
    return all(map(_is_text, kinds)) or all(map(_is_number, kinds)) or all(map(pa.types.is_boolean, kinds))


def _fill(out: Float32Array, array: pa.Array, cast: ColumnCast, categories: CategoryMap | None) -> None:
    if cast.rule == "category":
        if categories is None:
            raise UnsupportedTypeError(f"encoding column {cast.name!r}", "it has no category map")
        out[:] = categories.encode(array)
        return
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        out[:] = np.nan
        return
    if cast.rule != (found := _numeric_rule(cast.name, array.type)):
        raise UnsupportedTypeError(
            f"casting column {cast.name!r} by the rule {cast.rule!r}", f"found {array.type}, whose rule is {found!r}"
        )
    # The same arithmetic with and without nulls, so that a value does not depend on its neighbours in a batch. What is
    # beyond float32 becomes infinite, which the profile refuses by row and column.
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, numbers(array), casting="unsafe")
    if array.null_count:
        out[nulls(array)] = np.nan


def numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Return the values as NumPy numbers in the unit of the policy; anything where the array has nulls.

    A view where the type has one. Unlike `to_numpy` it does not import pandas.
    """
    kind = array.type
    if pa.types.is_boolean(kind):
        return _view(array.cast(pa.uint8()), np.dtype(np.uint8))
    if pa.types.is_decimal(kind):
        return _view(array.cast(pa.float64()), np.dtype(np.float64))
    if pa.types.is_date32(kind):
        return _view(array, np.dtype(np.int32))
    if pa.types.is_date64(kind):
        return _view(array, np.dtype(np.int64)) / _MILLISECONDS_IN_A_DAY
    if pa.types.is_temporal(kind):
        width = np.dtype(np.int32 if kind.bit_width == 32 else np.int64)
        return _view(array, width) / _UNITS_IN_A_SECOND[kind.unit]
    return _view(array, np.dtype(kind.to_pandas_dtype()))


def nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return where an array has nulls; boolean, shape [rows]."""
    return _view(array.is_null().cast(pa.uint8()), np.dtype(np.bool_))


def _view(array: pa.Array, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    values = array.buffers()[1]
    if values is None or not len(array):
        return np.zeros(len(array), dtype=kind)
    return np.frombuffer(values, dtype=kind, count=len(array), offset=array.offset * kind.itemsize)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _numeric_rule(name: str, kind: pa.DataType) -> Rule:
    kind = _value_type(kind)
    if is_sparse(kind):
        raise UnsupportedTypeError(
            f"casting column {name!r} to float32",
            "it holds sparse features, lists of (index, value)",
            "Train XGBoost on it, alone in input_cols; for anything else, turn it into columns first.",
        )
    for rule, fits in _NUMERIC_RULES:
        if fits(kind):
            return rule
    if _is_text(kind):
        advice = f"Name {name!r} in categorical_cols if it holds categories, or leave it out of input_cols."
    else:
        advice = f"Leave {name!r} out of input_cols, or turn it into numbers first."
    raise UnsupportedTypeError(f"casting column {name!r} to float32", f"its type is {kind}", advice)


_NUMERIC_RULES: tuple[tuple[Rule, Callable[[pa.DataType], bool]], ...] = (
    ("number", pa.types.is_integer),
    ("number", pa.types.is_floating),
    ("number", pa.types.is_null),
    ("boolean", pa.types.is_boolean),
    ("decimal", pa.types.is_decimal),
    ("date", pa.types.is_date),
    ("timestamp", pa.types.is_timestamp),
    ("time", pa.types.is_time),
    ("duration", pa.types.is_duration),
)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _check_discrete(name: str, kind: pa.DataType, rule: Rule) -> None:
    discrete = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_null)
    temporal = rule == "group" and pa.types.is_temporal(kind)
    if not (_is_text(kind) or temporal or any(test(kind) for test in discrete)):
        raise UnsupportedTypeError(
            f"reading column {name!r} as {rule}", f"its type is {kind}", "Use text, whole numbers or booleans."
        )


__all__ = [
    "CategoryMap",
    "CategoryValue",
    "ColumnCast",
    "Rule",
    "cast_to_float32",
    "distinct_categories",
    "encode_features",
    "plan_casts",
    "same_categories",
]

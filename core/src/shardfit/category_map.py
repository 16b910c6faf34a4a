"""Which number stands for which category: one sorted map for a column, the same on every worker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardfit.errors import InvalidValueError, UnsupportedTypeError

CategoryValue: TypeAlias = "str | int | bool"
Float32Array = npt.NDArray[np.float32]

# Codes are float32, which counts no further without gaps.
MOST_CATEGORIES = 2**24
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class CategoryMap:
    """The categories of one column; the code of a category is its position.

    Args:
        column: Name of the column.
        values: Sorted and distinct; all text, all whole numbers, or all booleans.

    Raises:
        ValueError: The values are not sorted and distinct, are of several types, or are more than 2**24.
    """

    column: str
    values: tuple[CategoryValue, ...]

    def __post_init__(self) -> None:
        if len({type(value) for value in self.values}) > 1:
            raise ValueError(f"CategoryMap.values of {self.column!r} must be of one type, found {self.values[:10]!r}")
        if any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):  # type: ignore[operator]
            raise ValueError(f"CategoryMap.values of {self.column!r} must be sorted and distinct")
        if len(self.values) > MOST_CATEGORIES:
            raise ValueError(f"CategoryMap.values of {self.column!r} must be at most 2**24, found {len(self.values)}")

    @classmethod
    def of(cls, column: str, values: Iterable[CategoryValue]) -> CategoryMap:
        """Return the map of the distinct `values`, in any order."""
        return cls(column, tuple(sorted(set(values))))

    def __len__(self) -> int:
        return len(self.values)

    def encode(self, array: pa.Array) -> Float32Array:
        """Return the code of each value: float32, shape [rows], NaN for nulls and for values not in the map.

        Args:
            array: Text, whole numbers or booleans like those of the map, or a dictionary of them; floats where the
                map's values are whole numbers.

        Raises:
            UnsupportedTypeError: The array holds values of another kind.
        """
        if not pa.types.is_dictionary(array.type):
            return _floats_or_nan(self._find(array))
        codes = np.append(_floats_or_nan(self._find(array.dictionary)), np.float32("nan"))
        indices = pc.fill_null(array.indices.cast(pa.int64()), len(array.dictionary))
        encoded: Float32Array = codes[indices.to_numpy()]
        return encoded

    def to_json(self) -> str:
        """Return the map as JSON; `from_json` gives an equal map."""
        return json.dumps({"column": self.column, "values": self.values})

    @classmethod
    def from_json(cls, text: str) -> CategoryMap:
        """Return the map that `to_json` wrote.

        Raises:
            ValueError: The text is no such map.
        """
        try:
            fields = json.loads(text)
            return cls(fields["column"], tuple(fields["values"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"found no category map in {text[:100]!r}") from error

    @cached_property
    def _value_set(self) -> pa.Array:
        if not self.values or isinstance(self.values[0], str):
            return pa.array(self.values, pa.large_string())
        if isinstance(self.values[0], bool):
            return pa.array(self.values, pa.bool_())
        return pa.array(self.values, pa.uint64() if self.values[-1] > _INT64_MAX else pa.int64())  # type: ignore[operator]

    def _find(self, array: pa.Array) -> pa.Array:
        if not self.values or pa.types.is_null(array.type):
            return pa.nulls(len(array), pa.int32())
        values = self._value_set
        try:
            if pa.types.is_floating(array.type):
                # index_in tells -0.0 from 0.0.
                return pc.index_in(
                    pc.add(array.cast(pa.float64()), 0.0), value_set=values.cast(pa.float64(), safe=False)
                )
            if pa.types.is_string(array.type) and pa.types.is_large_string(values.type):
                # The few values change their type rather than the many rows.
                return pc.index_in(array, value_set=values.cast(pa.string()))
            return pc.index_in(_like(array, values.type), value_set=values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise UnsupportedTypeError(
                f"looking up the categories of column {self.column!r}",
                f"the column is {array.type}, the categories are like {self.values[0]!r}",
                "Give it the type that the model was trained with.",
            ) from error

    def __getstate__(self) -> dict[str, object]:
        return {"column": self.column, "values": self.values}


def distinct_categories(array: pa.Array) -> frozenset[CategoryValue]:
    """Return the distinct values of an array as plain Python values; nulls and NaN are none of them.

    Sets of parts of a column can be merged. Only values that occur count, not the rest of a dictionary. Whole numbers
    stored as floats, as pandas does for a column with missing values, count as whole numbers.

    Raises:
        InvalidValueError: A float is not a whole number, or is one beyond 64 bits.
    """
    unique = pc.unique(array)
    if pa.types.is_dictionary(unique.type):
        unique = unique.dictionary_decode()
    values = (value for value in unique.to_pylist() if value is not None)
    if not pa.types.is_floating(unique.type):
        return frozenset(values)
    return frozenset(_whole(value) for value in values if not math.isnan(value))


def _whole(value: float) -> int:
    # Beyond 2**63, no column of whole numbers could hold the same category.
    if not value.is_integer() or abs(value) >= 2.0**63:
        raise InvalidValueError(
            "collecting categories from a column of floats", f"found {value!r}", "Use whole 64-bit numbers or text."
        )
    return int(value)


def _like(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    # A whole number beyond the range of the map's type is a category that the map does not have.
    if pa.types.is_uint64(array.type) and pa.types.is_int64(kind):
        array = pc.if_else(pc.greater(array, pa.scalar(_INT64_MAX, pa.uint64())), None, array)
    elif pa.types.is_signed_integer(array.type) and pa.types.is_uint64(kind):
        array = pc.if_else(pc.less(array, 0), None, array)
    if (
        pa.types.is_boolean(array.type)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(array.type) != pa.types.is_integer(kind)
    ):
        raise pa.ArrowTypeError(f"{array.type} is not {kind}")
    return cast("pa.Array", array.cast(kind))


def _floats_or_nan(codes: pa.Array) -> Float32Array:
    found = pc.fill_null(codes, -1).to_numpy().astype(np.float32)
    found[found < 0] = np.nan
    return cast("Float32Array", found)

"""Sparse features: one column of lists of (index, value) pairs, which stays sparse all the way to the library.

| what | how it is written |
|---|---|
| a row | the values that it has, `{"index": 3, "value": 0.5}`, by ascending index from 0 |
| the column | an Arrow list (or large list) of such structs; indices of any integer type, values of any number type |
| the number of features | metadata of the column's field, else one more than the largest index |

What a row does not name is missing, as XGBoost takes it; a zero that is named is a zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardfit.errors import InvalidValueError, UnsupportedTypeError

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

SPARSE = pa.list_(pa.struct([pa.field("index", pa.int32()), pa.field("value", pa.float32())]))
"""The type in which shardfit's own sources promise sparse features."""
MOST_FEATURES = 2**31 - 1
ENTRY_BYTES = 8
"""Bytes of an index and a value, as they are decoded."""
SAMPLED_VALUE_BYTES = 20
"""Bytes of a sampled value: itself, its row, feature and weight."""
_MOST_DISTINCT_BYTES = 256 * 2**20
_FEATURES = b"features"


def is_sparse(kind: pa.DataType) -> bool:
    """Return whether a column of type `kind` holds sparse features."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    entry = kind.value_type
    if [field.name for field in entry] != ["index", "value"]:
        return False
    number = entry.field("value").type
    return bool(
        pa.types.is_integer(entry.field("index").type) and (pa.types.is_integer(number) or pa.types.is_floating(number))
    )


def with_features(column: pa.Field, features: int | None) -> pa.Field:
    """Return the field of a sparse column that says how many features there are; says nothing where that is None."""
    return column.with_metadata({_FEATURES: str(features)} if features is not None else None)


def features_of(column: pa.Field) -> int | None:
    """Return how many features a field says that its sparse column has; None where it does not say.

    Raises:
        UnsupportedTypeError: What it says is no number.
    """
    said = (column.metadata or {}).get(_FEATURES)
    if said is None or not is_sparse(column.type):
        return None
    if not said.isdigit() or not 1 <= int(said) <= MOST_FEATURES:
        raise UnsupportedTypeError(
            f"reading the number of features of column {column.name!r}",
            f"found {said!r} in the metadata of its field",
            f"Use a whole number from 1 to {MOST_FEATURES:,}.",
        )
    return int(said)


def most_distinct(features: int, wanted: int, max_bin: int) -> int:
    """Return how many distinct values of each feature to keep: fewer where there are many features.

    Args:
        features: How many there are.
        wanted: Most values of a feature.
        max_bin: Most bins, which is the least that this returns, unless `wanted` is less.
    """
    return min(wanted, max(_MOST_DISTINCT_BYTES // (8 * features), max_bin))


@dataclass(frozen=True, eq=False, slots=True)
class SparseRows:
    """Some rows of sparse features: compressed sparse rows.

    Args:
        offsets: Where in `indices` and `values` each row starts, and where the last ends; int64, shape [rows + 1].
        indices: Feature of each value, ascending within a row; int32, shape [values].
        values: float32, shape [values], without NaN.
        features: Number of features.
    """

    offsets: Int64Array
    indices: Int32Array
    values: Float32Array
    features: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def row_numbers(self) -> Int64Array:
        """The row of each value, from 0; int64, shape [values]."""
        return np.repeat(np.arange(self.rows, dtype=np.int64), np.diff(self.offsets))

    @classmethod
    def nothing(cls, rows: int, features: int) -> SparseRows:
        """Return rows without a value."""
        none = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        return cls(np.zeros(rows + 1, dtype=np.int64), *none, features)

    @classmethod
    def of(cls, column: pa.Array, name: str, features: int, missing: float = float("nan")) -> SparseRows:
        """Return the rows of an Arrow column; values that are null, NaN or `missing` are left out, as are null rows'.

        Args:
            column: As `is_sparse` wants it.
            name: Of the column, for messages.
            features: How many there are.
            missing: A value that counts as missing beside NaN.

        Raises:
            UnsupportedTypeError: The column is of another type.
            InvalidValueError: An index is null, negative, too large, or not above the one before it; says in which row
                of `column`.
        """
        if not is_sparse(column.type):
            raise UnsupportedTypeError(
                f"reading sparse features from column {name!r}",
                f"its type is {column.type}",
                "Use a list of structs with the fields index and value.",
            )
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        # Flattening leaves out what null rows and slices hide, and gives the fields the nulls of their structs.
        index, value = column.flatten().flatten()
        _check_indices(index, offsets, name, features)
        indices = _numbers(index, np.dtype(np.int32))
        with np.errstate(over="ignore"):
            values = _numbers(value.fill_null(float("nan")) if value.null_count else value, np.dtype(np.float32))
        return cls(offsets, indices, values, features)._present(missing)

    def _present(self, missing: float) -> SparseRows:
        there = ~np.isnan(self.values)
        if not np.isnan(missing):
            there &= self.values != np.float32(missing)
        if there.all():
            return self
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(there)])
        return SparseRows(before[self.offsets], self.indices[there], self.values[there], self.features)


def check_features(column: pa.Field, what: str) -> int:
    """Return how many features a sparse column has.

    Args:
        column: Of the schema of a source.
        what: What the column is of, for the message.

    Raises:
        UnsupportedTypeError: The source does not say.
    """
    features = features_of(column)
    if features is None:
        raise UnsupportedTypeError(
            f"counting the features of the sparse column {column.name!r} of {what}",
            "neither the column nor the statistics of its file say how many there are",
            "Write the field with the metadata {'features': '<number>'}.",
        )
    return features


def largest_index(column: pa.ChunkedArray) -> int:
    """Return the largest index of a sparse column in memory, or -1 where it has no value."""
    found = [pc.max(chunk.flatten().field("index")).as_py() for chunk in column.chunks]
    return max((index for index in found if index is not None), default=-1)


def count_values(column: pa.ChunkedArray) -> int:
    """Return how many values a sparse column in memory holds."""
    return int(pc.sum(pc.list_value_length(column)).as_py() or 0)


def _numbers(array: pa.Array, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    return numbers


def _check_indices(index: pa.Array, offsets: Int64Array, name: str, features: int) -> None:
    if index.null_count:
        place = int(np.flatnonzero(pc.is_null(index).to_numpy(zero_copy_only=False))[0])
        raise _bad_index(name, offsets, place, "a null index", "Every value needs an index.")
    numbers = index.to_numpy(zero_copy_only=False)
    if not len(numbers):
        return
    if (bad := (numbers < 0) | (numbers >= features)).any():
        place = int(np.flatnonzero(bad)[0])
        advice = "Say how many features there are, the same for training and evaluation data."
        raise _bad_index(name, offsets, place, f"the index {int(numbers[place])} of {features:,} features", advice)
    falls = numbers[1:] <= numbers[:-1]
    # Between rows, an index may fall.
    starts = offsets[(offsets > 0) & (offsets < len(numbers))]
    falls[starts - 1] = False
    if falls.any():
        place = int(np.flatnonzero(falls)[0]) + 1
        found = f"the index {int(numbers[place])} after {int(numbers[place - 1])}"
        raise _bad_index(name, offsets, place, found, "Sort each row by index, and name each index once.")


def _bad_index(name: str, offsets: Int64Array, place: int, found: str, advice: str) -> InvalidValueError:
    row = int(np.searchsorted(offsets, place, side="right")) - 1
    return InvalidValueError(
        f"reading sparse features from column {name!r}", f"found {found} in row {row} of a batch", advice
    )

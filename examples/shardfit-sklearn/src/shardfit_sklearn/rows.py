"""Rows of a shard as columns of float64, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit import ColumnRoles
from shardfit.errors import InvalidValueError
from shardfit.shard_reader import ShardBatch, ShardReader

Column = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows, column by column; float64, shape [rows] each.

    Args:
        features: In the order of the roles.
        label: What is predicted.
        weight: 1 where there is no weight column.
    """

    features: tuple[Column, ...]
    label: Column
    weight: Column


def read_rows(reader: ShardReader, roles: ColumnRoles, binary: bool) -> Iterator[Rows]:
    """Yield the rows of a shard, batch by batch.

    Args:
        reader: Read once.
        roles: Which column plays which part.
        binary: Whether labels must be 0 or 1.

    Raises:
        InvalidValueError: A value is missing or not finite, a weight is negative, or a label is neither 0 nor 1.
    """
    for batch in reader.batches():
        features = tuple(_finite(batch, name) for name in roles.features)
        label = _finite(batch, roles.label[0])
        if binary:
            _refuse(batch, roles.label[0], (label != 0) & (label != 1), "The labels of `logistic` are 0 and 1.")
        weight = np.ones(len(label)) if roles.weight is None else _finite(batch, roles.weight)
        if roles.weight is not None:
            _refuse(batch, roles.weight, weight < 0, "A weight is 0 or more.")
        yield Rows(features, label, weight)


def feature_columns(batch: pa.RecordBatch, names: tuple[str, ...]) -> tuple[Column, ...]:
    """Return columns as float64, NaN where a value is missing."""
    return tuple(_as_float64(batch.column(name)) for name in names)


def _as_float64(array: pa.Array) -> Column:
    values: Column = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _finite(batch: ShardBatch, name: str) -> Column:
    values = _as_float64(batch.records.column(name))
    _refuse(batch, name, ~np.isfinite(values), "Linear models take no missing and no infinite value: fill or drop it.")
    return values


def _refuse(batch: ShardBatch, name: str, bad: npt.NDArray[np.bool_], advice: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        value = batch.records.column(name)[row].as_py()
        where = f"row {batch.row_ids[row]:,} ({batch.origin})"
        raise InvalidValueError(f"reading column {name!r}", f"found {value!r} in {where}", advice)

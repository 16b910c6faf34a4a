"""From Arrow columns to tensors, a column at a time: columns of one type share one block of memory.

| Arrow type | tensor | nulls |
|---|---|---|
| float16, float32, float64 | the same | NaN |
| int8 to int64, uint8, booleans | the same | refused |
| uint16; uint32 and uint64 | int32; int64 | refused |
| dictionary of numbers | as its numbers | as for its numbers |
| a column with categories | int64 code, the position among the sorted categories | the number of categories |
| decimals, dates, times, timestamps, durations, null | float32 by the policy of `shardfit.casts` | NaN |

All else is refused, text without categories among it. A value that is not among the categories counts as a null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from shardfit.casts import ColumnCast, cast_to_float32, nulls, numbers, plan_casts
from shardfit.category_map import CategoryMap, CategoryValue
from shardfit.columns import check_column
from shardfit.errors import InvalidArgumentError, InvalidValueError, UnknownColumnError, UnsupportedTypeError

Categories: TypeAlias = "Mapping[str, CategoryMap | Sequence[CategoryValue]]"
Blocks: TypeAlias = "tuple[torch.Tensor, ...]"

_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


@dataclass(frozen=True)
class TensorColumn:
    """How one column becomes a tensor.

    Args:
        name: Of the column.
        dtype: NumPy name of the type of the tensor.
        block: Which block holds it.
        row: Which row of the block.
        cast: The rule of the core, for types that PyTorch does not have; else None.
        categories: The categories of a column of codes; else None.
    """

    name: str
    dtype: str
    block: int
    row: int
    cast: ColumnCast | None = None
    categories: CategoryMap | None = None


class TensorColumns:
    """How records become blocks: one tensor a type, of shape [columns of that type, rows].

    Args:
        schema: Of the table.
        names: Columns to read, in the order of the batches; None means all.
        categories: Column -> its categories, sorted or not.

    Raises:
        UnknownColumnError: A column does not exist, or is named twice.
        UnsupportedTypeError: A column has no tensor; says its type and what to do.
    """

    def __init__(
        self, schema: pa.Schema, names: Sequence[str] | None = None, categories: Categories | None = None
    ) -> None:
        self.names = _checked(schema, names)
        maps = {name: _as_map(name, given) for name, given in (categories or {}).items()}
        if stray := sorted(set(maps) - set(self.names)):
            raise UnknownColumnError("reading categories", f"{stray!r} are not read", "Name them in columns, too.")
        types = [_tensor_type(schema, name, maps) for name in self.names]
        dtypes = list(dict.fromkeys(dtype for dtype, _ in types))
        members: list[list[str]] = [[] for _ in dtypes]
        columns = []
        for name, (dtype, cast) in zip(self.names, types, strict=True):
            block = dtypes.index(dtype)
            columns.append(TensorColumn(name, dtype, block, len(members[block]), cast, maps.get(name)))
            members[block].append(name)
        self.columns = tuple(columns)
        self.layout = tuple(tuple(names_of_block) for names_of_block in members)
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row over all blocks."""
        return sum(dtype.itemsize * len(names) for dtype, names in zip(self._dtypes, self.layout, strict=True))

    def empty(self, rows: int) -> list[npt.NDArray[Any]]:
        """Return blocks for so many rows, to be filled."""
        return [np.empty((len(names), rows), dtype) for dtype, names in zip(self._dtypes, self.layout, strict=True)]

    def fill(self, blocks: Sequence[npt.NDArray[Any]], at: int, records: pa.RecordBatch, origin: str) -> None:
        """Write records into blocks, from row `at` on.

        Args:
            blocks: From `empty`.
            at: Row of the blocks.
            records: With exactly the columns that are read, in their order.
            origin: Where they come from, for messages.

        Raises:
            InvalidValueError: A null in a column whose tensor cannot hold one; a number beyond 63 bits.
        """
        for index, column in enumerate(self.columns):
            out = blocks[column.block][column.row, at : at + records.num_rows]
            _fill(out, records.column(index), column, origin)


def as_tensors(blocks: Iterable[npt.NDArray[Any]]) -> Blocks:
    """Return blocks as tensors, without a copy."""
    return tuple(torch.from_numpy(block) for block in blocks)


def _checked(schema: pa.Schema, names: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidArgumentError("reading columns", f"found the text {names!r}", f"Pass a list: [{names!r}].")
    chosen = tuple(schema.names if names is None else names)
    for name in chosen:
        check_column(name, schema)
    if not chosen or len(set(chosen)) != len(chosen):
        found = "none is named" if not chosen else f"one of {chosen!r} is named twice"
        raise UnknownColumnError("reading columns", found, "Name each column once.")
    return chosen


def _as_map(name: str, given: CategoryMap | Sequence[CategoryValue]) -> CategoryMap:
    return given if isinstance(given, CategoryMap) else CategoryMap.of(name, given)


def _tensor_type(schema: pa.Schema, name: str, maps: Mapping[str, CategoryMap]) -> tuple[str, ColumnCast | None]:
    if name in maps:
        return "int64", None
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        dtype = str(np.dtype(kind.to_pandas_dtype()))
        return _WIDER.get(dtype, dtype), None
    if pa.types.is_boolean(kind):
        return "bool", None
    try:
        return "float32", plan_casts(schema, [name])[0]
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(
            f"turning column {name!r} into a tensor",
            f"its type is {schema.field(name).type}",
            f"Leave it out with columns=[...], or give its categories, as in categories={{{name!r}: ['a', 'b']}}, "
            "if it holds text or whole numbers that stand for something.",
        ) from error


def _fill(out: npt.NDArray[Any], array: pa.Array, column: TensorColumn, origin: str) -> None:
    if column.categories is not None:
        codes = column.categories.encode(array)
        np.copyto(out, np.where(np.isnan(codes), np.float32(len(column.categories)), codes), casting="unsafe")
        return
    if column.cast is not None:
        out[:] = cast_to_float32(array, column.cast)
        return
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count and not pa.types.is_floating(array.type):
        raise _null(array, column, origin)
    if pa.types.is_uint64(array.type) and len(array) and pc.max(array).as_py() >= 2**63:
        raise InvalidValueError(
            f"turning column {column.name!r} of {origin} into int64",
            f"found {pc.max(array).as_py()!r}",
            "Tensors of whole numbers have 63 bits and a sign; cast the column to float64 first.",
        )
    np.copyto(out, numbers(array), casting="unsafe")
    if array.null_count:
        out[nulls(array)] = np.nan


def _null(array: pa.Array, column: TensorColumn, origin: str) -> InvalidValueError:
    first = pc.index(pc.is_null(array), True).as_py()
    return InvalidValueError(
        f"turning column {column.name!r} of {origin} into {column.dtype}",
        f"{array.null_count} of {len(array)} values are null, the first is number {first}",
        "A tensor of whole numbers or booleans cannot hold a null: fill them, or cast the column to float32, where a "
        "null becomes NaN.",
    )

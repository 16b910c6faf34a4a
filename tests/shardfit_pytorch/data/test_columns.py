"""From Arrow columns to tensors: types, nulls, categories, and what is refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from shardfit import DataConnector
from shardfit.category_map import CategoryMap
from shardfit.errors import InvalidArgumentError, InvalidValueError, UnknownColumnError, UnsupportedTypeError
from tests.shardfit_pytorch.data.tables import UnevenSource, rank_of


def tensor_of(values: Any, kind: pa.DataType | None = None, **options: Any) -> torch.Tensor:
    """The tensor of one column whose rows lie in several fragments and batches."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    first = len(array) // 2
    source = UnevenSource(pa.table({"x": array}), [first, len(array) - first])
    return next(iter(rank_of(source, **options)))["x"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), torch.int8),
        (pa.int16(), torch.int16),
        (pa.int32(), torch.int32),
        (pa.int64(), torch.int64),
        (pa.uint8(), torch.uint8),
        (pa.uint16(), torch.int32),
        (pa.uint32(), torch.int64),
        (pa.uint64(), torch.int64),
        (pa.float16(), torch.float16),
        (pa.float32(), torch.float32),
        (pa.float64(), torch.float64),
    ],
)
def test_numbers_keep_their_type_where_pytorch_computes_with_it(kind: pa.DataType, dtype: torch.dtype) -> None:
    tensor = tensor_of(pa.array(np.arange(40)).cast(kind))
    assert tensor.dtype == dtype
    assert tensor.tolist() == list(range(40))


def test_booleans_are_booleans() -> None:
    values = [index % 3 == 0 for index in range(40)]
    assert tensor_of(values).dtype == torch.bool
    assert tensor_of(values).tolist() == values


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_null_among_floats_is_nan(kind: pa.DataType) -> None:
    tensor = tensor_of([1.5, None, 2.5, None], kind)
    assert torch.isnan(tensor).tolist() == [False, True, False, True]
    assert tensor[[0, 2]].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_(), pa.uint64()])
def test_a_null_among_whole_numbers_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(
        InvalidValueError, match=r"'x' of 'memory:0', fragment 1 .*1 of 3 values are null, the first is number 2"
    ):
        tensor_of(pa.array([1, 1, 0, 0, 1, None]).cast(kind))


def test_a_number_of_64_bits_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="18446744073709551615"):
        tensor_of([1, 2**64 - 1], pa.uint64())


def test_a_dictionary_of_numbers_is_its_numbers() -> None:
    assert tensor_of(pa.array([30, 10, 30, 20]).dictionary_encode()).tolist() == [30, 10, 30, 20]


def test_what_pytorch_has_no_type_for_follows_the_policy_of_the_core() -> None:
    assert tensor_of([datetime.date(1970, 1, 3), None], pa.date32()).nan_to_num(-1).tolist() == [2, -1]
    assert tensor_of([Decimal("1.5"), None], pa.decimal128(5, 2)).nan_to_num(-1).tolist() == [1.5, -1]
    assert tensor_of([1500, 3000], pa.duration("ms")).tolist() == [1.5, 3]
    assert torch.isnan(tensor_of([None, None], pa.null())).all()


@pytest.mark.parametrize("categories", [["b", "a"], CategoryMap.of("x", ["a", "b"])])
@pytest.mark.parametrize("encoded", [False, True])
def test_text_with_categories_is_codes(categories: Any, encoded: bool) -> None:
    array = pa.array(["b", "a", None, "b", "c", "a"])
    array = array.dictionary_encode() if encoded else array
    tensor = tensor_of(array, categories={"x": categories})
    # Nulls and what is unknown have the code after the last.
    assert tensor.tolist() == [1, 0, 2, 1, 2, 0]
    assert tensor.dtype == torch.int64


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", "b"], "string"), ([b"a", b"b"], "binary"), ([[1], [2]], "list"), ([{"a": 1}, None], "struct")],
)
def test_what_is_no_number_is_refused_with_column_type_and_advice(values: Any, kind: str) -> None:
    with pytest.raises(
        UnsupportedTypeError, match=rf"column 'x' into a tensor: its type is {kind}.*columns=\["
    ) as error:
        tensor_of(values)
    assert "categories={'x'" in str(error.value)


def test_columns_are_chosen_in_their_order() -> None:
    table = pa.table({"a": [1, 2], "text": ["u", "v"], "b": [0.5, 1.5], "c": [3, 4]})
    batch = next(iter(rank_of(UnevenSource(table, [2]), columns=["c", "b", "a"])))
    assert list(batch) == ["c", "b", "a"]
    assert [batch[name].tolist() for name in batch] == [[3, 4], [0.5, 1.5], [1, 2]]


@pytest.mark.parametrize(
    ("options", "error", "found"),
    [
        ({"columns": ["y"]}, UnknownColumnError, "'y'"),
        ({"columns": ["x", "x"]}, UnknownColumnError, "named twice"),
        ({"columns": []}, UnknownColumnError, "none is named"),
        ({"columns": "x"}, InvalidArgumentError, r"Pass a list: \['x'\]"),
        ({"categories": {"y": ["a"]}}, UnknownColumnError, "'y'"),
    ],
)
def test_columns_that_are_none_are_refused(options: Any, error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found):
        tensor_of([1.0, 2.0], **options)


def test_a_plain_connector_has_tensors_too() -> None:
    table = pa.table({"x": np.arange(2500), "y": np.arange(2500) / 2})
    dataset = DataConnector.from_arrow(table).to_torch_dataset(columns=["x"])
    assert [batch["x"].shape for batch in dataset] == [(1024,), (1024,), (452,)]
    shuffled = DataConnector.from_arrow(table).to_torch_dataset(batch_size=2500, shuffle=True, seed=1)
    assert sorted(next(iter(shuffled))["x"].tolist()) == list(range(2500))

"""A batch: a dict whose columns lie beside each other in memory."""

from __future__ import annotations

import copy
import io
import operator
import pickle
import sys
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, default_collate, default_convert

from shardfit.errors import UnknownColumnError
from shardfit_pytorch.data import Batch
from tests.shardfit_pytorch.data.tables import UnevenSource, rank_of

ROWS = 12
COLUMNS = {
    "a": np.arange(ROWS, dtype=np.float32),
    "id": np.arange(ROWS),
    "b": np.arange(ROWS, dtype=np.float32) + 100,
    "c": np.arange(ROWS, dtype=np.float32) + 200,
}


def batch_of(batch_size: int = 8) -> Batch:
    return next(iter(rank_of(UnevenSource(pa.table(COLUMNS), [ROWS]), batch_size=batch_size)))


def test_a_batch_is_a_dict_in_the_order_of_the_columns() -> None:
    batch = batch_of()
    assert isinstance(batch, dict)
    assert list(batch) == ["a", "id", "b", "c"]
    assert batch["id"].tolist() == list(range(8))
    assert all(tensor.is_contiguous() for tensor in batch.values())


def test_neighbours_of_one_type_are_stacked_without_a_copy() -> None:
    batch = batch_of()
    X = batch.stack(["b", "c"])
    assert X.shape == (8, 2)
    assert X.data_ptr() == batch["b"].data_ptr()
    assert X[3].tolist() == [103, 203]


@pytest.mark.parametrize("names", [["c", "a"], ["a", "id"], ["id"], None])
def test_any_columns_can_be_stacked(names: Any) -> None:
    batch = batch_of()
    expected = np.stack([COLUMNS[name][:8] for name in names or COLUMNS], axis=1)
    assert batch.stack(names).tolist() == expected.tolist()


def test_a_stack_with_a_dimension_of_the_loader_has_it_too() -> None:
    source = UnevenSource(pa.table(COLUMNS), [ROWS])
    batch = next(iter(DataLoader(rank_of(source, batch_size=8))))
    assert batch["a"].shape == (1, 8)
    assert batch.stack(["a", "b"]).shape == (1, 8, 2)
    assert batch.stack(["a", "id"]).shape == (1, 8, 2)


def test_a_loader_without_a_batch_size_leaves_batches_in_one_piece() -> None:
    source = UnevenSource(pa.table(COLUMNS), [ROWS])
    batch = next(iter(DataLoader(rank_of(source, batch_size=8), batch_size=None)))
    assert batch.stack(["b", "c"]).data_ptr() == batch["b"].data_ptr()
    copied = copy.copy(batch)
    copied["b"] = torch.zeros(8)
    assert batch.stack(["b", "c"])[3].tolist() == [103, 203]
    assert copied.stack(["b", "c"])[3].tolist() == [0, 203]


def test_a_loader_without_a_batch_size_makes_no_tensor_before_it_is_asked_for() -> None:
    source = UnevenSource(pa.table(COLUMNS), [ROWS])
    for batch in (next(iter(DataLoader(rank_of(source, batch_size=8), batch_size=None))), default_convert(batch_of())):
        assert list(dict.values(batch)) == [None] * 4
        assert {name: tensor.tolist() for name, tensor in batch.items()} == {
            name: column[:8].tolist() for name, column in COLUMNS.items()
        }


def test_a_copy_of_a_changed_batch_has_its_columns_and_no_others() -> None:
    batch = batch_of()
    del batch["b"]
    batch["new"] = np.zeros(8)  # type: ignore[assignment]
    assert list(copy.copy(batch)) == ["a", "id", "c", "new"]
    converted = default_convert(batch)
    assert list(converted) == ["a", "id", "c", "new"]
    assert all(isinstance(column, torch.Tensor) for column in converted.values())


def given_by_keyword(**columns: torch.Tensor) -> dict[str, torch.Tensor]:
    return columns


def updated(batch: Batch) -> dict[str, torch.Tensor]:
    plain: dict[str, torch.Tensor] = {}
    plain.update(batch)
    return plain


def matched(batch: Batch) -> dict[str, Any]:
    match batch:
        case {"a": a, "id": number, **others}:
            return {"a": a, "id": number, **others}
    return {}


READINGS: dict[str, Callable[[Batch], Mapping[str, Any]]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "unpacked": lambda batch: {**batch},
    "keywords": lambda batch: given_by_keyword(**batch),
    "update": updated,
    "or": lambda batch: batch | {},
    "or after": lambda batch: {} | batch,
    "or in place": lambda batch: operator.ior({}, batch),
    "items": lambda batch: dict(batch.items()),
    "values": lambda batch: dict(zip(batch.keys(), batch.values(), strict=True)),
    "by name": lambda batch: {name: batch[name] for name in batch},
    "get": lambda batch: {name: batch.get(name) for name in reversed(list(batch))},
    "setdefault": lambda batch: {name: batch.setdefault(name, None) for name in list(batch)},
    "pop": lambda batch: {name: batch.pop(name) for name in list(batch)},
    "popitem": lambda batch: dict(batch.popitem() for _ in range(len(batch))),
    "match": matched,
    "proxy": lambda batch: {name: MappingProxyType(batch)[name] for name in batch},
    "view of keys": lambda batch: {name: batch.keys().mapping[name] for name in batch},
    "chain": lambda batch: dict(ChainMap({}, batch)),
    "method copy": lambda batch: batch.copy(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda batch: pickle.loads(pickle.dumps(batch)),
    "to": lambda batch: batch.to("cpu"),
    "convert": default_convert,
    "collate": lambda batch: {name: tensor[0] for name, tensor in default_collate([batch]).items()},
    "collate two": lambda batch: {name: tensor[0] for name, tensor in default_collate([batch, batch]).items()},
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
@pytest.mark.parametrize("begun", [False, True])
def test_however_a_batch_is_read_its_tensors_are_there(read: Callable[[Batch], Mapping[str, Any]], begun: bool) -> None:
    batch = batch_of()
    if begun:
        batch["b"].add_(1)
    expected = {**COLUMNS, "b": COLUMNS["b"] + begun}
    found = read(batch)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: column[:8].tolist() for name, column in expected.items()
    }


def test_a_column_is_one_tensor_however_often_it_is_read() -> None:
    batch = batch_of()
    first = batch["a"]
    assert all(found["a"] is first for found in (batch, dict(batch), copy.copy(batch), batch.copy(), batch | {}))
    assert dict(batch)["b"] is batch["b"]


def test_batches_are_compared_and_shown_with_their_tensors() -> None:
    batch = batch_of(1)
    assert batch == batch_of(1) == dict(batch_of(1))
    assert batch != {**batch, "a": torch.ones(1)}
    assert repr(batch_of(1)) == repr(dict(batch))


def change_item(batch: Batch) -> None:
    batch["b"] = batch["b"] * 0


def change_by_update(batch: Batch) -> None:
    batch.update(b=torch.zeros(8))


def change_by_or(batch: Batch) -> None:
    batch |= {"b": torch.zeros(8)}


def change_in_place(batch: Batch) -> None:
    batch["b"].zero_()


def change_by_popping(batch: Batch) -> None:
    batch.pop("b")
    batch.setdefault("b", torch.zeros(8))


@pytest.mark.parametrize("change", [change_item, change_by_update, change_by_or, change_in_place, change_by_popping])
def test_a_changed_batch_stacks_and_travels_as_it_is(change: Any) -> None:
    batch = batch_of()
    change(batch)
    copied = pickle.loads(pickle.dumps(batch))
    for found in (batch, copy.copy(batch), batch.to(torch.float32), copied):
        assert found.stack(["b", "a"])[1].tolist() == [0, 1]
        assert sorted(found) == ["a", "b", "c", "id"]


def test_columns_can_be_added_and_taken_away() -> None:
    batch = batch_of()
    batch["ab"] = batch["a"] + batch["b"]
    del batch["id"]
    assert list(batch.popitem()[1]) == list(batch_of()["a"] + batch_of()["b"])
    assert batch.stack().shape == (8, 3)
    batch.clear()
    assert len(batch) == 0


def test_a_pickled_batch_does_not_take_its_neighbours_along() -> None:
    large = UnevenSource(pa.table({"x": np.zeros(100_000)}), [100_000])
    batch = next(iter(rank_of(large, batch_size=4)))
    assert len(pickle.dumps(batch)) < 5_000
    file = io.BytesIO()
    torch.save(dict(batch), file)
    assert list(batch.copy()) == ["x"]


def test_a_batch_moves_in_one_piece_and_changes_type() -> None:
    moved = batch_of().to("meta")
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}
    assert batch_of().to(torch.float64)["id"].dtype == torch.float64


def test_a_column_that_is_none_is_named_with_its_neighbour() -> None:
    with pytest.raises(UnknownColumnError, match="Did you mean 'id'") as error:
        batch_of()["idd"]
    assert isinstance(error.value, KeyError)
    assert batch_of().get("idd") is None
    with pytest.raises(KeyError):
        batch_of().stack(["a", "z"])


def test_batches_that_nobody_has_read_differ_by_what_they_hold() -> None:
    one, other = ({"id": torch.tensor([number])} for number in (1, 2))
    batches = [Batch((("id",),), (torch.tensor([[number]]),), ("id",)) for number in (1, 2, 1)]
    assert batches[0] != batches[1]
    assert batches[0] == batches[2]
    assert one == batches[0]
    assert other != batches[0]


def test_a_column_that_is_set_to_none_is_none_whether_it_was_read_or_not() -> None:
    batch = batch_of()
    batch.update(a=None)  # type: ignore[arg-type]
    batch |= {"new": None}
    assert batch["a"] is None
    assert batch["new"] is None
    assert batch["b"].tolist() == COLUMNS["b"][:8].tolist()


def test_threads_that_read_one_batch_all_find_its_tensors() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            for _ in range(300):
                batch = batch_of()
                found = [threads.submit(lambda read=batch: list(read.values())) for _ in range(2)]
                assert all(tensor is not None for each in found for tensor in each.result())
    finally:
        sys.setswitchinterval(interval)

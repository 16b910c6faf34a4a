"""One batch: a dict of column -> tensor whose tensors are views of a few blocks of memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache, reduce
from itertools import count
from typing import Any, NamedTuple, Protocol, Self
from weakref import WeakValueDictionary

import torch
from torch.utils.data import default_collate, default_convert, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from shardfit.coverage import RowDigest
from shardfit.errors import UnknownColumnError
from shardfit_pytorch.data.columns import Blocks


class Receipt(NamedTuple):
    """What a batch says of itself once the loop uses it.

    Args:
        owner: Number of the dataset that made it, in the process of the loop.
        epoch: Of the batch.
        step: Within the epoch, from 0.
        rank_rows: Rows of the batch.
        global_rows: Rows of the step over all ranks.
        digest: Of the rows.
    """

    owner: int
    epoch: int
    step: int
    rank_rows: int
    global_rows: int
    digest: RowDigest

    def note(self) -> None:
        """Tell the dataset, if it is still there."""
        if (take := _TAKERS.get(self.owner)) is not None:
            take.note(self)


class Taker(Protocol):
    """What wants to know which batches the loop has."""

    def note(self, receipt: Receipt) -> None:
        """Be told of a batch as the loop takes it."""


# A batch that comes from a worker process knows its dataset by number only.
_TAKERS: WeakValueDictionary[int, Taker] = WeakValueDictionary()
_NUMBERS = count()


def register(taker: Taker) -> int:
    """Return a number by which receipts find `taker` as long as it lives."""
    number = next(_NUMBERS)
    _TAKERS[number] = taker
    return number


class UnknownBatchColumnError(UnknownColumnError, KeyError):
    """A batch has no column of that name; the nearest one is suggested."""


class Batch(dict[str, torch.Tensor]):
    """Column -> tensor of shape [rows], or [1, rows] once a `DataLoader` with its default `batch_size=1` had it.

    Columns of one type lie in one block of memory, so that `stack`, `to`, `pin_memory` and the way from a `DataLoader`
    worker cost one tensor and not one a column. The tensor of a column is made when it is first asked for. It can be
    changed like any dict. What is not Python and reads dicts, as TorchScript does, is given `dict(batch)`.

    Args:
        layout: Names of the columns of each block.
        blocks: One a type, of shape [..., columns, rows].
        names: All columns in their order.
        receipts: Told to the dataset when the loop first uses the batch; none where it knows of the batch already.
    """

    __slots__ = ("_blocks", "_layout", "_missing", "_names", "_receipts")

    def __init__(
        self,
        layout: tuple[tuple[str, ...], ...],
        blocks: Blocks,
        names: tuple[str, ...],
        receipts: tuple[Receipt, ...] = (),
    ) -> None:
        # Whether there are columns whose tensor was not made yet; None stands for it.
        self._missing = bool(blocks)
        super().__init__(_nothing_yet(names))
        # Emptied by whatever changes the dict: its tensors are then no longer those of the blocks.
        self._layout, self._blocks, self._names, self._receipts = layout, blocks, names, receipts

    def stack(self, columns: Sequence[str] | None = None) -> torch.Tensor:
        """Return columns beside each other: shape [..., rows, columns].

        Columns of one type that follow each other in the batch are a view; others of one type are copied once.

        Args:
            columns: Which, in this order; None means all.

        Raises:
            UnknownColumnError: The batch has no such column.
        """
        names = tuple(dict.keys(self) if columns is None else columns)
        if self._blocks and (place := _place(self._layout, names)) is not None:
            self.taken()
            block, rows = self._blocks[place[0]], place[1]
            if isinstance(rows, tuple):
                return block.index_select(-2, torch.tensor(rows, device=block.device)).transpose(-1, -2)
            return block.narrow(-2, rows.start, len(rows)).transpose(-1, -2)
        tensors = [self[name] for name in names]
        kind = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
        return torch.stack([tensor.to(kind) for tensor in tensors], dim=-1)

    def to(self, *arguments: Any, **options: Any) -> Batch:
        """Return the batch on another device or of another type; arguments as for `torch.Tensor.to`."""
        self.taken()
        return self._map(lambda tensor: tensor.to(*arguments, **options))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; a `DataLoader` with `pin_memory=True` calls it."""
        return self._map(lambda tensor: tensor.pin_memory())

    def taken(self) -> Self:
        """Say that the loop has this batch; any use of its columns does so, too."""
        if self._receipts and get_worker_info() is None:
            receipts, self._receipts = self._receipts, ()
            for receipt in receipts:
                receipt.note()
        return self

    def attach(self, receipt: Receipt) -> None:
        """Let the first use of the batch be noted."""
        self._receipts = (*self._receipts, receipt)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        if self._blocks:
            return Batch(self._layout, tuple(map(change, self._blocks)), self._names, self._receipts)
        return _separate([(name, change(tensor)) for name, tensor in dict.items(self)], self._receipts)

    def _change(self) -> None:
        self._fill()
        self._blocks = ()

    def _fill(self) -> Self:
        """Make the tensors that are missing."""
        if self._missing:
            for members, block in zip(self._layout, self._blocks, strict=True):
                for name, view in zip(members, block.unbind(-2), strict=True):
                    if dict.get(self, name) is None:
                        super().__setitem__(name, view)
            # Last, or another thread would take what is not there yet for what it is.
            self._missing = False
        return self

    def _view(self, name: str) -> torch.Tensor:
        number, row = _places(self._layout)[name]
        view = self._blocks[number].select(-2, row)
        super().__setitem__(name, view)
        return view

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._receipts:
            self.taken()
        try:
            tensor: torch.Tensor | None = super().__getitem__(name)
        except KeyError:
            near = get_close_matches(str(name), list(dict.keys(self)), n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"It has {list(dict.keys(self))!r:.500}."
            raise UnknownBatchColumnError(f"reading column {name!r} of a batch", "it has none", advice) from None
        if tensor is not None:
            return tensor
        # Another thread may have made it meanwhile.
        return self._view(name) if self._missing else super().__getitem__(name)

    # Whatever reads a dict counts as use of it.
    def __iter__(self) -> Iterator[str]:
        # A DataLoader with batch_size=None copies each batch and makes tensors of its values. In ours they are, and to
        # look at each of them takes longer than all else that it does.
        if self._blocks and sys._getframe(1).f_code is default_convert.__code__:
            return iter(())
        return super(Batch, self.taken()).__iter__()

    def keys(self) -> Any:
        """Do as a dict does."""
        return super(Batch, self.taken()).keys()

    def values(self) -> Any:
        """Do as a dict does."""
        return super(Batch, self.taken()._fill()).values()

    def items(self) -> Any:
        """Do as a dict does."""
        return super(Batch, self.taken()._fill()).items()

    def get(self, name: str, default: Any = None) -> Any:
        """Do as a dict does."""
        return self.taken()[name] if dict.__contains__(self, name) else default

    def pop(self, name: str, *default: Any) -> Any:
        """Do as a dict does."""
        self._change()
        return super(Batch, self.taken()).pop(name, *default)

    def popitem(self) -> tuple[str, torch.Tensor]:
        """Do as a dict does."""
        self._change()
        return super(Batch, self.taken()).popitem()

    def update(self, *arguments: Any, **columns: Any) -> None:
        """Do as a dict does."""
        given = dict(*arguments, **columns)
        if given:
            self._change()
        super().update(given)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Do as a dict does."""
        self._change()
        return super(Batch, self.taken()).setdefault(name, default)

    def clear(self) -> None:
        """Do as a dict does."""
        self._blocks, self._missing = (), False
        super().clear()

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        self._change()
        super().__setitem__(name, tensor)

    def __delitem__(self, name: str) -> None:
        self._change()
        super().__delitem__(name)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc, override]
        self.update(other)
        return self

    def copy(self) -> dict[str, torch.Tensor]:
        """Return a plain dict of the same tensors."""
        return dict(self.items())

    def __copy__(self) -> Batch:
        if not self._blocks:
            return _separate(list(dict.items(self)), self._receipts)
        batch = Batch(self._layout, self._blocks, self._names, self._receipts)
        # Tensors that are made already are the same in both.
        dict.update(batch, list(dict.items(self)))
        return batch

    def __eq__(self, other: object) -> bool:
        return self.copy() == (other.copy() if isinstance(other, Batch) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return super(Batch, self._fill()).__repr__()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._blocks:
            return (_separate, (list(dict.items(self)), self._receipts))
        # A view would take the whole block that it was cut from to the other process.
        blocks = tuple(block.clone(memory_format=torch.contiguous_format) for block in self._blocks)
        return (Batch, (self._layout, blocks, self._names, self._receipts))


def _separate(columns: Sequence[tuple[str, torch.Tensor]], receipts: tuple[Receipt, ...]) -> Batch:
    batch = Batch((), (), (), receipts)
    for name, tensor in columns:
        dict.__setitem__(batch, name, tensor)
    return batch


@lru_cache(maxsize=64)
def _nothing_yet(names: tuple[str, ...]) -> dict[str, Any]:
    return dict.fromkeys(names)


@lru_cache(maxsize=64)
def _places(layout: tuple[tuple[str, ...], ...]) -> dict[str, tuple[int, int]]:
    """Return the block of each column and its row in it."""
    return {name: (number, row) for number, members in enumerate(layout) for row, name in enumerate(members)}


@lru_cache(maxsize=64)
def _place(layout: tuple[tuple[str, ...], ...], names: tuple[str, ...]) -> tuple[int, range | tuple[int, ...]] | None:
    """Return the block that holds all of `names` and their rows in it, a range where they follow each other."""
    for number, members in enumerate(layout):
        places = {name: row for row, name in enumerate(members)}
        if names and all(name in places for name in names):
            rows = tuple(places[name] for name in names)
            run = range(rows[0], rows[0] + len(rows))
            return number, run if tuple(run) == rows else rows
    return None


def _collate(batches: Sequence[Batch], *, collate_fn_map: Any = None) -> Batch:  # noqa: ARG001 - PyTorch passes it
    """Do what `default_collate` does to a dict, a block at a time and for a single batch without a copy."""
    first = batches[0]
    if len(batches) == 1 and first._blocks:
        return Batch(first._layout, tuple(block.unsqueeze(0) for block in first._blocks), first._names, first._receipts)
    plain = default_collate([dict(dict.items(batch._fill())) for batch in batches])
    return _separate(list(plain.items()), tuple(receipt for batch in batches for receipt in batch._receipts))


# The way that PyTorch documents for types of one's own.
default_collate_fn_map[Batch] = _collate

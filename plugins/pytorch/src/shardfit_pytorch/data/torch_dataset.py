"""The dataset that a `DataLoader` takes: batches of this rank, and where the loop is among them."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from shardfit.coverage import RowDigest
from shardfit.errors import EmptyDataError, InvalidArgumentError
from shardfit.read_ahead import read_ahead
from shardfit.source import DataSource, Fragment
from shardfit_pytorch.data.batch import Batch, Receipt, register
from shardfit_pytorch.data.columns import TensorColumns, as_tensors
from shardfit_pytorch.data.deal_rules import DealRules
from shardfit_pytorch.data.epoch_plan import EpochPlan, check_position, plan_epoch
from shardfit_pytorch.data.order import RowOrder
from shardfit_pytorch.data.orphans import end_with_the_loop
from shardfit_pytorch.data.position import Position
from shardfit_pytorch.data.row_reader import RowReader, Rows
from shardfit_pytorch.data.tracker import ConsumedStep, Tracker

_LOG = logging.getLogger(__name__)


class UncountedBatchesWarning(UserWarning):
    """What `DataLoader` workers made did not come to the loop as batches, so it is not known what the loop took."""


@dataclass(frozen=True)
class RankTable:
    """A table and whose rows of it are read.

    Args:
        name: Of the dataset, for messages.
        source: Where the rows are.
        fragments: All of the table, in global row order.
        schema: All columns of the table.
        rank: Of this process.
        world_size: Number of ranks.
        tracker: Told what the loop consumes, or None.
    """

    name: str
    source: DataSource
    fragments: Sequence[Fragment]
    schema: pa.Schema
    rank: int = 0
    world_size: int = 1
    tracker: Tracker | None = None


class ShardfitDataset(IterableDataset[Batch]):
    """This rank's batches: dicts of column -> tensor of shape [rows].

    Each iteration is an epoch, and the next one is the next epoch. Works with `DataLoader(dataset)`, which puts a
    dimension of 1 before the rows, with `DataLoader(dataset, batch_size=None)`, which does not, and with
    `num_workers=...`. Without workers, a thread decodes ahead of the loop.

    Args:
        table: The table and this rank.
        order: Of the rows.
        rules: How they are dealt.
        columns: Which columns and how.
    """

    def __init__(self, table: RankTable, order: RowOrder, rules: DealRules, columns: TensorColumns) -> None:
        if not order.rows:
            raise EmptyDataError(f"reading dataset {table.name!r} as tensors", "it has no rows", "Pass some rows.")
        self.name = table.name
        self._table, self._order, self._rules, self._columns = table, order, rules, columns
        self._resume: Position | None = None
        self._position = Position(rows=order.rows, order=order.name)
        self._step_rows: tuple[int, int] | None = None
        self._warned = False
        self._next_epoch, self._jumps = 0, 0
        # Seen by DataLoader workers that live longer than an epoch: how often the loop chose an epoch, which one, and
        # the steps that it begins after. All else a worker knows from its copy of the dataset and counts itself: the
        # loop may be in an epoch before the last of its workers has begun.
        self._chosen = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        # Set by a DataLoader worker that has handed over its last batch of an epoch.
        self._handed_over = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._number = register(self)
        self._fresh_plan = self._planned = plan_epoch(order, rules, self._position, table.rank, table.world_size)
        if self.dropped_rows:
            _LOG.warning("%d of %d rows of %r are left out of every epoch", self.dropped_rows, order.rows, self.name)
        if table.tracker is not None:
            table.tracker.attach(self)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads, or goes on with; 0 at first."""
        return self._next_epoch

    @property
    def dropped_rows(self) -> int:
        """Rows that `drop_last_batch` or `equal` leave out of each epoch, over all ranks."""
        return self._order.rows - self._fresh_plan.dealing.deal.rows

    def __len__(self) -> int:
        """Return the steps of a whole epoch, the same on every rank."""
        return self._fresh_plan.dealing.steps

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration read `epoch`; an epoch that was to be continued in its middle still is.

        Raises:
            InvalidArgumentError: `epoch` is no whole number from 0.
        """
        if not isinstance(epoch, int) or epoch < 0:
            raise InvalidArgumentError("setting the epoch of a dataset", f"found {epoch!r}", "Epochs count from 0.")
        if epoch != self.epoch:
            self._enter(Position(epoch, rows=self._order.rows, order=self._order.name))

    def state(self) -> Position:
        """Return where the loop is: batches that it has taken count, those that were prepared ahead do not.

        A batch from a `DataLoader` worker counts once the loop has read one of its columns.
        """
        self._warn_if_nothing_counts()
        return self._position

    def start_at(self, position: Position | dict[str, Any] | str) -> None:
        """Let the next iteration go on from a position of `state`, of the same table and order, on any number of ranks.

        Args:
            position: A position, or its JSON.

        Raises:
            InvalidArgumentError: It is of another table or order, or of a deal that this number of ranks cannot go on
                with: fewer rows are left than there are ranks.
        """
        if not isinstance(position, Position):
            position = Position.from_json(position)
        check_position(position, self._order)
        self._enter(replace(position, rows=self._order.rows, order=self._order.name))

    def step_rows(self) -> tuple[int, int]:
        """Return the rows of the batch that the loop took last: of this rank, and of all ranks together.

        Raises:
            InvalidArgumentError: It has taken none.
        """
        if self._step_rows is None:
            raise InvalidArgumentError(
                f"asking for the rows of the current step of {self.name!r}", "no batch was taken yet", "Iterate first."
            )
        return self._step_rows

    def epoch_digest(self, epoch: int) -> RowDigest:
        """Return the digest of all rows that an epoch hands to all ranks together."""
        return self._plan(epoch).digest()

    def note(self, receipt: Receipt) -> None:
        """Count a batch that the loop took; batches call it."""
        self._step_rows = (receipt.rank_rows, receipt.global_rows)
        if (receipt.epoch, receipt.step) < (self._position.epoch, self._position.steps):
            return
        position = self._current_plan(receipt.epoch).after(receipt.step)
        self._position = position
        self._next_epoch = receipt.epoch + 1
        if self._table.tracker is not None:
            ends = position.epoch != receipt.epoch
            step = ConsumedStep(self.name, position, *receipt[1:], ends_epoch=ends)
            self._table.tracker.consumed(step)

    def _warn_if_nothing_counts(self) -> None:
        if self._step_rows is not None or self._warned or not self._handed_over.item():
            return
        self._warned = True
        warnings.warn(
            f"DataLoader workers handed over all batches of an epoch of {self.name!r}, and none was counted: a "
            "collate_fn made something else of them, or the loop used no column. Positions stay where they were, so "
            "checkpoints do not continue within the data, and rows are not proved. Let the collate_fn return the "
            "Batch, or use num_workers=0.",
            UncountedBatchesWarning,
            stacklevel=3,
        )

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if info is None:
            return self._read_here(self._current_plan(self._next_epoch))
        end_with_the_loop()
        jumps, epoch, steps = self._chosen.tolist()
        if jumps != self._jumps and steps:
            # Not before the first batch is asked for, where an error would end the worker without a word.
            return map(self._refuse_to_enter, [epoch])
        if jumps != self._jumps:
            self._jumps, self._next_epoch = jumps, epoch
        plan = self._current_plan(self._next_epoch)
        self._next_epoch += 1
        return self._read_in_worker(plan, info.id, info.num_workers)

    def __getstate__(self) -> dict[str, Any]:
        # The process of a DataLoader worker tells nobody: the loop's process does when it takes the batch.
        return {**self.__dict__, "_table": replace(self._table, tracker=None)}

    def _read_here(self, plan: EpochPlan) -> Iterator[Batch]:
        reader = self._reader(self._table.source, plan)
        ranges = (piece for _, step in plan.steps() for piece in step.ranges)
        with closing(read_ahead(reader.read(ranges), depth=3)) as ahead:
            for made in self._batches(ahead, plan, 0, 1):
                for batch, receipt in made:
                    self.note(receipt)
                    yield batch

    def _refuse_to_enter(self, epoch: int) -> NoReturn:
        raise InvalidArgumentError(
            f"continuing {self.name!r} in the middle of epoch {epoch}",
            "DataLoader workers were running before, and stay (persistent_workers=True)",
            "Call start_at() before the first iteration.",
        )

    def _read_in_worker(self, plan: EpochPlan, worker: int, workers: int) -> Iterator[Batch]:
        if any(fragment.uri.startswith("ray:") for fragment in self._table.fragments):
            raise InvalidArgumentError(
                f"reading the Ray dataset {self.name!r} in a DataLoader worker",
                "Ray cannot be used in a process that a DataLoader made",
                "Use num_workers=0: a thread decodes ahead of the loop already.",
            )
        # A copy as another process would get it: no file that was open, no lock that was held, as this one was forked.
        reader = self._reader(copy.copy(self._table.source), plan)
        ranges = (piece for _, step in plan.steps(worker, workers) for piece in step.ranges)
        for made in self._batches(reader.read(ranges), plan, worker, workers):
            for batch, receipt in made:
                batch.attach(receipt)
                yield batch
        self._handed_over.fill_(1)

    def _reader(self, source: DataSource, plan: EpochPlan) -> RowReader:
        return RowReader(source, self._table.fragments, self._columns, plan.order)

    def _batches(
        self, rows: Iterator[Rows], plan: EpochPlan, worker: int, workers: int
    ) -> Iterator[list[tuple[Batch, Receipt]]]:
        """Yield all batches that end in one block together: made one at a time, each would find cold caches."""
        held: Rows | None = None
        at = 0
        made: list[tuple[Batch, Receipt]] = []
        for number, step in plan.steps(worker, workers):
            parts, missing = [], step.rank_rows
            while missing:
                if held is None or at == len(held.row_ids):
                    if made:
                        yield made
                        made = []
                    held, at = next(rows), 0
                taken = min(missing, len(held.row_ids) - at)
                parts.append(held.cut(at, at + taken))
                at, missing = at + taken, missing - taken
            batch = Rows.join(parts)
            epoch, digest = plan.begin.epoch, self._digest(batch, plan)
            receipt = Receipt(self._number, epoch, number, step.rank_rows, step.global_rows, digest)
            made.append((Batch(self._columns.layout, as_tensors(batch.blocks), self._columns.names), receipt))
        yield made

    def _digest(self, rows: Rows, plan: EpochPlan) -> RowDigest:
        first, last = int(rows.row_ids[0]), int(rows.row_ids[-1])
        # In the order of the table, ascending numbers without a gap are a range.
        if not plan.order.shuffled and last - first == len(rows.row_ids) - 1:
            return RowDigest.of_range(first, last + 1)
        return RowDigest.of_rows(rows.row_ids)

    def _enter(self, position: Position) -> None:
        self._position, self._resume = position, position if position.deals else None
        self._planned = self._plan(position.epoch)
        self._next_epoch, self._jumps = position.epoch, self._jumps + 1
        self._chosen.copy_(torch.tensor([self._jumps, position.epoch, position.steps]))

    def _current_plan(self, epoch: int) -> EpochPlan:
        if self._planned.begin.epoch != epoch:
            self._planned = self._plan(epoch)
        return self._planned

    def _plan(self, epoch: int) -> EpochPlan:
        begin = Position(epoch, rows=self._order.rows, order=self._order.name)
        if self._resume is not None and self._resume.epoch == epoch:
            begin = self._resume
        return plan_epoch(self._order, self._rules, begin, self._table.rank, self._table.world_size)

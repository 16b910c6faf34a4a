"""What one rank reads in an epoch, from its first step or from the middle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from shardfit.coverage import RowDigest
from shardfit.errors import EmptyDataError, InvalidArgumentError
from shardfit_pytorch.data.deal_rules import DealRules
from shardfit_pytorch.data.dealing import Dealing, StepRows, left_after
from shardfit_pytorch.data.order import EpochOrder, RowOrder
from shardfit_pytorch.data.position import Deal, Position


@dataclass(frozen=True)
class EpochPlan:
    """The steps of an epoch that are left.

    Args:
        order: Of the rows.
        begin: Where the epoch is entered.
        past: Deals that others made of the epoch before.
        dealing: The deal at hand.
        first: Its first step that is left.
        rank: Whose rows.
    """

    order: EpochOrder
    begin: Position
    past: tuple[Deal, ...]
    dealing: Dealing
    first: int
    rank: int

    @cached_property
    def past_steps(self) -> int:
        """Steps of the epoch under earlier deals."""
        return sum(deal.steps for deal in self.past)

    def steps(self, worker: int = 0, workers: int = 1) -> Iterator[tuple[int, StepRows]]:
        """Yield (number within the epoch, rows) of every step that is left, or of every `workers`-th of them."""
        for step in range(self.first + worker, self.dealing.steps, workers):
            yield self.past_steps + step, self.dealing.of(step, self.rank)

    def after(self, step: int) -> Position:
        """Return the position once a step, numbered within the epoch, is consumed."""
        done = step + 1 - self.past_steps
        if done >= self.dealing.steps:
            return Position(self.begin.epoch + 1, 0, self.begin.rows, self.begin.order)
        deal = self.dealing.deal
        deals = (*self.past, Deal(deal.rows_per_step, deal.ranks, deal.rows, done))
        return Position(self.begin.epoch, step + 1, self.begin.rows, self.begin.order, deals)

    def digest(self) -> RowDigest:
        """Return the digest of the rows of the whole epoch over all ranks, without those that are left out."""
        left, rows = self.dealing.left, self.dealing.deal.rows
        digest = RowDigest.of_range(0, self.begin.rows)
        for start, stop in left.cut(rows, len(left)):
            dropped = RowDigest.of_rows(self.order.row_ids(start, stop))
            first, second, third = ((a - b) % 2**64 for a, b in zip(digest.powers, dropped.powers, strict=True))
            digest = RowDigest(digest.rows - dropped.rows, (first, second, third))
        return digest


def plan_epoch(order: RowOrder, rules: DealRules, begin: Position, rank: int, world_size: int) -> EpochPlan:
    """Return what `rank` reads of the epoch of `begin`, from there on.

    Continues the last deal where it was cut as `rules` would; else deals anew what it left.

    Raises:
        EmptyDataError: The table has no rows, or fewer than would fill a step that is not dropped.
        InvalidArgumentError: There are fewer rows than ranks.
    """
    past = begin.deals
    if past:
        left = left_after(order.rows, past[:-1])
        if (deal := rules.deal(len(left), world_size)) == replace(past[-1], steps=0):
            dealing = Dealing(left, deal, world_size)
            return EpochPlan(order.epoch(begin.epoch), begin, past[:-1], dealing, past[-1].steps, rank)
    left = left_after(order.rows, past)
    deal = rules.deal(len(left), world_size)
    if not deal.rows:
        raise EmptyDataError(
            "dealing the rows of an epoch",
            f"{len(left)} rows are left, which fill no step of {deal.rows_per_step * max(deal.ranks, 1)}",
            "Use drop_last_batch=False, or a smaller batch.",
        )
    return EpochPlan(order.epoch(begin.epoch), begin, past, Dealing(left, deal, world_size), 0, rank)


def check_position(position: Position, order: RowOrder) -> None:
    """Check that a position is one in this order.

    Raises:
        InvalidArgumentError: It is of a table with another number of rows, or of another shuffle.
    """
    if not position.deals and not position.rows:
        return
    if position.rows != order.rows:
        raise InvalidArgumentError(
            "continuing a dataset from a position",
            f"it is of a table of {position.rows} rows, and this one has {order.rows}",
            "Continue on the table that the run began with.",
        )
    if position.deals and position.order != order.name:
        raise InvalidArgumentError(
            "continuing a dataset from the middle of an epoch",
            f"the rows were in the order {position.order!r}, and now they are in the order {order.name!r}",
            "Use the same shuffle and seed, or start a new epoch with set_epoch().",
        )

"""Who gets which rows of a step: pure arithmetic on positions in the order of an epoch.

Two cuts exist. With a batch size of each rank, the positions are divided into one range a rank, and a step takes the
next rows of every range: each rank reads its own rows only. With a global batch size, a step is the next range of
positions, divided over the ranks: the rows of a step do not depend on the number of ranks.

No step leaves a rank without rows, and ranks differ by at most one row. So a tail that is too small joins the step
before it: one smaller than the number of ranks or, with a global batch size, smaller than half of it, a rule that does
not know the number of ranks either.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from shardfit.errors import InvalidArgumentError
from shardfit_pytorch.data.position import Deal

Range: TypeAlias = "tuple[int, int]"


class StepRows(NamedTuple):
    """The rows of one rank in one step.

    Args:
        ranges: Positions, start and stop (exclusive).
        rank_rows: How many these are.
        global_rows: Rows of the step over all ranks.
    """

    ranges: tuple[Range, ...]
    rank_rows: int
    global_rows: int


class Positions:
    """Ranges of positions, one after another: what is left of an epoch.

    Args:
        ranges: Start and stop (exclusive) of each; those that are empty are left out.
    """

    def __init__(self, ranges: Iterable[Range]) -> None:
        self.ranges = tuple((start, stop) for start, stop in ranges if start < stop)
        self._ends = list(accumulate(stop - start for start, stop in self.ranges))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def cut(self, start: int, stop: int) -> tuple[Range, ...]:
        """Return the positions of the elements `start` to `stop` (exclusive)."""
        pieces: list[Range] = []
        index = bisect_right(self._ends, start)
        while start < stop:
            last = self.ranges[index][1]
            begin = last - (self._ends[index] - start)
            taken = min(stop - start, last - begin)
            pieces.append((begin, begin + taken))
            start += taken
            index += 1
        return tuple(pieces)


class Dealing:
    """One cut of the positions that were left into steps for every rank.

    Args:
        left: What was left of the epoch.
        deal: How to cut it; its `steps` do not matter.
        world_size: Number of ranks.

    Raises:
        InvalidArgumentError: A rank would have no row in a step.
    """

    def __init__(self, left: Positions, deal: Deal, world_size: int) -> None:
        self.deal = deal
        self.left = left
        self._world = world_size
        self._step = deal.rows_per_step * max(deal.ranks, 1)
        full, tail = divmod(deal.rows, self._step)
        joins = tail < deal.ranks if deal.ranks else 2 * tail < self._step
        self.steps = (full if joins else full + 1) if full else int(tail > 0)
        if 0 < deal.rows < world_size:
            raise _too_few(deal.rows, world_size)

    def global_rows(self, step: int) -> int:
        """Return the rows of a step over all ranks."""
        return self._step if step < self.steps - 1 else self.deal.rows - step * self._step

    def of(self, step: int, rank: int) -> StepRows:
        """Return the rows of one rank in a step, 0 to `steps` - 1."""
        total = self.global_rows(step)
        if self.deal.ranks:
            first, last = share(self.deal.rows, self.deal.ranks, rank)
            start = first + step * self.deal.rows_per_step
            stop = last if step == self.steps - 1 else start + self.deal.rows_per_step
        else:
            first, last = share(total, self._world, rank)
            start, stop = step * self._step + first, step * self._step + last
        return StepRows(self.left.cut(start, stop), stop - start, total)

    def after(self, steps: int) -> Positions:
        """Return what is left after so many steps, with what was not dealt at all."""
        rest = self.left.cut(self.deal.rows, len(self.left))
        if not self.deal.ranks:
            return Positions([*self.left.cut(min(steps * self._step, self.deal.rows), self.deal.rows), *rest])
        ranges: list[Range] = []
        for rank in range(self.deal.ranks):
            first, last = share(self.deal.rows, self.deal.ranks, rank)
            start = last if steps >= self.steps else first + steps * self.deal.rows_per_step
            ranges.extend(self.left.cut(start, last))
        return Positions([*ranges, *rest])


def share(total: int, parts: int, part: int) -> Range:
    """Return the start and stop of one of `parts` parts of `total` that differ by at most one."""
    size, rest = divmod(total, parts)
    start = part * size + min(part, rest)
    return start, start + size + (part < rest)


def left_after(rows: int, deals: Sequence[Deal]) -> Positions:
    """Return what is left of an epoch of `rows` rows after `deals`, one after another."""
    left = Positions([(0, rows)])
    for deal in deals:
        left = Dealing(left, deal, 1).after(deal.steps)
    return left


def _too_few(rows: int, world_size: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"dealing {rows} rows to {world_size} ranks",
        "a rank would have none, and a step without rows makes its loss nan",
        f"Use at most {rows} ranks; what is left of an epoch divides over fewer ranks, or over the next epoch's.",
    )

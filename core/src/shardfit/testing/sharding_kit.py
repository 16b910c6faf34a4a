"""What every `ShardingStrategy` must do: a kit to subclass."""

from __future__ import annotations

import pickle
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.errors import PlanError
from shardfit.groups import GroupIndex
from shardfit.shard_plan import ShardingConstraints, ShardingStrategy, ShardPlan, World
from shardfit.source import Fragment
from shardfit.testing.kit import Kit, check
from shardfit.testing.strategies import fragment_lists, group_runs, worlds


@dataclass(frozen=True)
class Division:
    """What a strategy is asked to divide.

    Args:
        fragments: In global row order.
        world: Over how many workers.
        constraints: With groups or without.
        seed: Of whatever a strategy draws.
    """

    fragments: tuple[Fragment, ...]
    world: World
    constraints: ShardingConstraints = field(default_factory=ShardingConstraints)
    seed: int = 0

    @property
    def rows(self) -> int:
        """Rows of the whole dataset."""
        return sum(fragment.rows for fragment in self.fragments)

    @property
    def units(self) -> int:
        """How many pieces may go to different workers: groups where there are any, else rows."""
        groups = self.constraints.group_index
        return self.rows if groups is None else len(groups.run_lengths)


@st.composite
def divisions(
    draw: st.DrawFn, groups: bool = False, max_fragments: int = 60, max_rows: int = 10**9, max_workers: int = 300
) -> Division:
    """Draw what a strategy may be asked to divide.

    Args:
        draw: Given by Hypothesis.
        groups: Whether there are groups to keep together.
        max_fragments: Most fragments.
        max_rows: Most rows of a fragment.
        max_workers: Most workers.
    """
    fragments = draw(fragment_lists(max_fragments, max_rows))
    rows = sum(fragment.rows for fragment in fragments)
    index = draw(group_runs(rows)) if groups else None
    return Division(fragments, draw(worlds(max_workers)), ShardingConstraints(index), draw(st.integers(0, 2**31 - 1)))


class ShardingKit(Kit, ABC):
    """What every sharding strategy must do. Subclass it and give it the strategy and its bound.

    Example:
        ```python
        class TestRows(ShardingKit):
            strategy = staticmethod(shard_by_rows)

            def most_rows(self, division, workers):
                return math.ceil(division.rows / workers)
        ```
    """

    strategy: ClassVar[ShardingStrategy]
    """The strategy; a function is wrapped in `staticmethod`."""

    keeps_groups: ClassVar[bool] = False
    """Whether it keeps groups together; a strategy that does not refuses them."""

    max_examples: ClassVar[int] = 40
    """Divisions that each property is tried on."""

    @abstractmethod
    def most_rows(self, division: Division, workers: int) -> Fraction | int:
        """Return the bound of the balance: the most rows that one worker may have.

        Args:
            division: What is divided.
            workers: How many workers the plan has.
        """

    def test_counting_rows_one_by_one_finds_each_once_with_its_number(self) -> None:
        """Each row of each fragment is in one shard, under its global row number."""

        def count(division: Division) -> None:
            seen = Counter(
                (piece.fragment_index, piece.start + i, piece.first_row + i)
                for shard in self._plan(division).shards(division.fragments)
                for piece in shard.slices
                for i in range(piece.rows)
            )
            places = [(i, row) for i, part in enumerate(division.fragments) for row in range(part.rows)]
            expected = Counter((i, row, number) for number, (i, row) in enumerate(places))
            check(seen == expected, f"missing {expected - seen}, too much {seen - expected}")

        self._for_all(count, max_fragments=8, max_rows=12, max_workers=20)

    def test_no_worker_has_more_rows_than_the_bound(self) -> None:
        """The balance that the strategy claims, whatever the fragments."""

        def compare(division: Division) -> None:
            plan = self._plan(division)
            bound, most = self.most_rows(division, plan.workers), int(plan.worker_rows.max())
            check(most <= bound, f"a worker has {most} rows of {division.rows} on {plan.workers}; at most {bound}")

        self._for_all(compare)

    def test_no_worker_is_idle_and_none_is_left_out_that_could_work(self) -> None:
        """As many workers as the world has, fewer only where there is nothing for them."""

        def compare(division: Division) -> None:
            plan = self._plan(division)
            check(plan.workers <= division.world.workers, f"{plan.workers} workers in {division.world!r}")
            wanted = max(1, min(division.world.workers, division.units))
            check(plan.workers == wanted, f"{plan.workers} workers where {wanted} have something to do")
            check(not division.rows or plan.worker_rows.min() >= 1, "a worker has no rows")

        self._for_all(compare)

    def test_equal_arguments_give_equal_plans(self) -> None:
        """A pure function: the same plan again, from copies, from lists, and whatever else drew random numbers."""

        def compare(division: Division) -> None:
            plan = self._plan(division)
            there: Division = pickle.loads(pickle.dumps(division))  # noqa: S301 - made here
            random.random()  # noqa: S311 - moves the generator that a strategy must not use
            np.random.random()
            again = type(self).strategy(list(there.fragments), there.world, there.seed, there.constraints)
            check(again == plan, "the same arguments give another plan")

        self._for_all(compare)

    def test_fragments_in_another_order_are_divided_as_they_stand(self) -> None:
        """Positions in a plan are those of the list that was given, sorted or not."""

        def compare(division: Division) -> None:
            # Groups are runs of rows in global order, which another order of the fragments would break.
            turned = replace(division, fragments=division.fragments[::-1])
            plan = self._plan(turned)
            planned = [part.rows for part in turned.fragments]
            check(plan.fragment_rows.tolist() == planned, "the plan counts the fragments in another order")
            seen: Counter[int] = Counter()
            for shard in plan.shards(turned.fragments):
                seen.update({piece.fragment_index: 0 for piece in shard.slices})
                for piece in shard.slices:
                    seen[piece.fragment_index] += piece.rows
            check({i: n for i, n in seen.items() if n} == {i: n for i, n in enumerate(planned) if n}, "rows are lost")

        self._for_all(compare)

    def test_a_plan_for_fewer_workers_covers_the_same_rows(self) -> None:
        """After a loss the run plans again: nothing is lost with the worker."""

        def compare(division: Division) -> None:
            fewer = replace(division, world=World(max(1, division.world.workers // 2)))
            plans = [self._plan(division), self._plan(fewer)]
            rows = [int(plan.worker_rows.sum()) for plan in plans]
            check(rows == [division.rows] * 2, f"{rows!r} rows are planned of {division.rows}")

        self._for_all(compare)

    def test_groups_stay_together_or_are_refused(self) -> None:
        """No group on two workers; a strategy that divides between any rows raises `PlanError`."""

        @settings(deadline=None, max_examples=self.max_examples)
        @given(divisions(groups=True, max_fragments=8, max_rows=12, max_workers=20))
        def compare(division: Division) -> None:
            groups = division.constraints.group_index
            if groups is None or not division.rows:
                return
            group_of = np.repeat(np.arange(len(groups.run_lengths)), groups.run_lengths)
            homes: dict[int, set[int]] = {}
            for shard in self._plan(division).shards(division.fragments):
                for piece in shard.slices:
                    for group in group_of[piece.first_row : piece.first_row + piece.rows].tolist():
                        homes.setdefault(group, set()).add(shard.worker)
            torn = {group: sorted(workers) for group, workers in homes.items() if len(workers) > 1}
            check(not torn, f"groups on several workers: {torn!r}")

        if self.keeps_groups:
            compare()
            return
        constraints = ShardingConstraints(GroupIndex(np.array([2, 3])))
        with pytest.raises(PlanError):
            self._plan(Division((Fragment("memory:0", 0, 5),), World(2), constraints))

    @pytest.mark.parametrize("rows", [(), (0,), (0, 0)], ids=["no fragment", "one", "two"])
    def test_without_rows_there_is_one_empty_shard(self, rows: tuple[int, ...]) -> None:
        """Nothing to divide is no reason to fail."""
        fragments = tuple(Fragment("memory:0", i, count) for i, count in enumerate(rows))
        groups = GroupIndex(np.zeros(0, dtype=np.int64)) if self.keeps_groups else None
        plan = self._plan(Division(fragments, World(5), ShardingConstraints(groups)))
        check([shard.slices for shard in plan.shards(fragments)] == [()], f"{plan.workers} workers for no rows")

    def test_two_hundred_thousand_million_rows_do_not_overflow(self) -> None:
        """Row numbers need 64 bits, and a plan needs no time for each row."""
        fragments = tuple(Fragment("memory:0", i, 10**9, 10**13) for i in range(200))
        groups = GroupIndex(np.full(2000, 10**8)) if self.keeps_groups else None
        division = Division(fragments, World(1000), ShardingConstraints(groups))
        plan = self._plan(division)
        check(int(plan.worker_rows.sum()) == division.rows, f"{plan.worker_rows.sum()} rows of {division.rows}")

    def _for_all(
        self,
        test: Callable[[Division], None],
        max_fragments: int = 60,
        max_rows: int = 10**9,
        max_workers: int = 300,
    ) -> None:
        drawn = divisions(self.keeps_groups, max_fragments, max_rows, max_workers)

        @settings(deadline=None, max_examples=self.max_examples)
        @given(drawn)
        def run(division: Division) -> None:
            test(division)

        run()

    def _plan(self, division: Division) -> ShardPlan:
        plan = type(self).strategy(division.fragments, division.world, division.seed, division.constraints)
        check(isinstance(plan, ShardPlan), f"the strategy returned {plan!r}")
        return plan


__all__ = ["Division", "ShardingKit", "divisions"]

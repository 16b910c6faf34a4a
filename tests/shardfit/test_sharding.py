"""The built-in strategies: each row once, balanced, the same everywhere, however many workers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shardfit.coverage import RowDigest
from shardfit.errors import PlanError
from shardfit.groups import GroupIndex
from shardfit.shard_plan import Shard, ShardingConstraints, ShardingStrategy, ShardPlan, World
from shardfit.sharding.bytes import shard_by_bytes
from shardfit.sharding.cut import at_least_one_apart, cut_at, even_boundaries
from shardfit.sharding.groups import shard_by_groups
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import Fragment
from shardfit.testing.strategies import fragment_lists, group_runs, worlds

STRATEGIES: dict[str, ShardingStrategy] = {"rows": shard_by_rows, "bytes": shard_by_bytes, "groups": shard_by_groups}
Case: TypeAlias = tuple[tuple[Fragment, ...], World, ShardingConstraints]


def total_rows(fragments: Sequence[Fragment]) -> int:
    return sum(fragment.rows for fragment in fragments)


@st.composite
def cases(draw: st.DrawFn, name: str, max_fragments: int = 200, max_rows: int = 10**9, max_workers: int = 1000) -> Case:
    fragments = draw(fragment_lists(max_fragments, max_rows))
    groups = draw(group_runs(total_rows(fragments))) if name == "groups" else None
    return fragments, draw(worlds(max_workers)), ShardingConstraints(groups)


any_case = st.sampled_from(sorted(STRATEGIES)).flatmap(lambda name: st.tuples(st.just(name), cases(name)))


def divide(name: str, case: Case, seed: int = 0) -> ShardPlan:
    fragments, world, constraints = case
    return STRATEGIES[name](fragments, world, seed, constraints)


def read_order(shards: Sequence[Shard]) -> list[tuple[int, int, int]]:
    """What is read when the shards are read one after another, adjoining ranges joined: (fragment, start, stop)."""
    joined: list[tuple[int, int, int]] = []
    for piece in (piece for shard in shards for piece in shard.slices):
        if joined and joined[-1][0] == piece.fragment_index and joined[-1][2] == piece.start:
            joined[-1] = (piece.fragment_index, joined[-1][1], piece.stop)
        else:
            joined.append((piece.fragment_index, piece.start, piece.stop))
    return joined


@given(any_case)
def test_shards_read_one_after_another_are_the_dataset_in_its_own_order(drawn: tuple[str, Case]) -> None:
    name, case = drawn
    fragments = case[0]
    shards = list(divide(name, case).shards(fragments))
    assert read_order(shards) == [(i, 0, fragment.rows) for i, fragment in enumerate(fragments) if fragment.rows]


@given(any_case)
def test_digests_of_the_shards_add_up_to_that_of_the_dataset(drawn: tuple[str, Case]) -> None:
    name, case = drawn
    shards = divide(name, case).shards(case[0])
    assert RowDigest.total(map(RowDigest.of_shard, shards)) == RowDigest.of_range(0, total_rows(case[0]))


@given(any_case)
def test_json_keeps_the_plan(drawn: tuple[str, Case]) -> None:
    name, case = drawn
    plan = divide(name, case)
    again = ShardPlan.from_json(plan.to_json())
    assert again == plan
    assert list(again.shards(case[0])) == list(plan.shards(case[0]))


@given(any_case, st.integers(0, 2**31))
def test_the_same_arguments_give_the_same_plan_whatever_the_seed(drawn: tuple[str, Case], seed: int) -> None:
    name, case = drawn
    assert divide(name, case).digest == divide(name, case, seed).digest


@given(cases("rows"))
def test_by_rows_shards_differ_by_at_most_one_row(case: Case) -> None:
    rows = shard_by_rows(case[0], case[1]).worker_rows
    assert rows.max() - rows.min() <= 1


@given(cases("bytes"))
def test_by_bytes_no_shard_exceeds_an_even_share_and_the_widest_row(case: Case) -> None:
    fragments = case[0]
    known = [fragment for fragment in fragments if fragment.bytes and fragment.rows]
    average = Fraction(sum(fragment.bytes or 0 for fragment in known), total_rows(known)) if known else Fraction(1)
    widths = [Fraction(f.bytes, f.rows) if f.bytes and f.rows else average for f in fragments]
    plan = shard_by_bytes(fragments, case[1])
    held = [
        sum((piece.rows * widths[piece.fragment_index] for piece in shard.slices), Fraction(0))
        for shard in plan.shards(fragments)
    ]
    # A cut may fall one row off, where the division in floating point ends on the other side of a half.
    bound = sum(held) / plan.workers + max(widths, default=Fraction(0)) * (1 + Fraction(1, 1000))
    assert max(held) <= bound


def test_by_bytes_gives_fewer_rows_where_rows_are_wide() -> None:
    fragments = [Fragment("a", 0, 100, 100_000), Fragment("b", 0, 900, 100_000)]
    assert shard_by_bytes(fragments, World(2)).worker_rows.tolist() == [100, 900]


def test_by_bytes_counts_rows_where_no_size_is_known() -> None:
    fragments = [Fragment("a", 0, 7), Fragment("b", 0, 0), Fragment("c", 0, 5)]
    assert shard_by_bytes(fragments, World(3)).worker_rows.tolist() == [4, 4, 4]


def test_by_bytes_a_fragment_of_unknown_size_counts_as_the_average_of_the_others() -> None:
    fragments = [Fragment("a", 0, 10, 1000), Fragment("b", 0, 10, None), Fragment("c", 0, 10, 3000)]
    # 100, 200 and 300 bytes a row: half of the 6,000 bytes are reached at the end of the second fragment.
    assert shard_by_bytes(fragments, World(2)).worker_rows.tolist() == [20, 10]


@given(cases("groups"))
def test_by_groups_keeps_groups_whole_and_exceeds_an_even_share_by_at_most_the_largest(case: Case) -> None:
    fragments, world, constraints = case
    groups = constraints.group_index
    assert groups is not None
    plan = shard_by_groups(fragments, world, 0, constraints)
    cuts = np.cumsum(plan.worker_rows)
    group_ends = set(np.cumsum(groups.run_lengths).tolist()) | {0}
    assert set(cuts.tolist()) <= group_ends
    largest = int(groups.run_lengths.max(initial=0))
    assert plan.worker_rows.max() <= Fraction(total_rows(fragments), plan.workers) + largest


def test_by_groups_cuts_at_the_group_nearest_to_an_even_share() -> None:
    constraints = ShardingConstraints(GroupIndex(np.array([3, 3, 3, 1])))
    plan = shard_by_groups([Fragment("a", 0, 10)], World(2), 0, constraints)
    assert plan.worker_rows.tolist() == [6, 4]


@pytest.mark.parametrize("name", ["rows", "bytes"])
def test_strategies_that_divide_anywhere_refuse_groups_and_name_the_one_that_keeps_them(name: str) -> None:
    constraints = ShardingConstraints(GroupIndex(np.array([2, 1])))
    with pytest.raises(PlanError, match="strategy 'groups'"):
        STRATEGIES[name]([Fragment("a", 0, 3)], World(2), 0, constraints)


def test_by_groups_without_groups_is_refused() -> None:
    with pytest.raises(PlanError, match="no group index"):
        shard_by_groups([Fragment("a", 0, 3)], World(2), 0, ShardingConstraints())


def test_by_groups_with_groups_of_other_data_is_refused_with_both_counts() -> None:
    constraints = ShardingConstraints(GroupIndex(np.array([2, 2])))
    with pytest.raises(PlanError, match="the groups have 4 rows and the fragments 3"):
        shard_by_groups([Fragment("a", 0, 3)], World(2), 0, constraints)


@given(st.integers(0, 10**15), st.integers(1, 1000))
@example(2**62, 1000)
def test_even_boundaries_differ_by_at_most_one(total: int, workers: int) -> None:
    boundaries = even_boundaries(total, workers)
    shares = np.diff(boundaries)
    assert (boundaries[0], boundaries[-1]) == (0, total)
    assert shares.max() - shares.min() <= 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(0, 40))
def test_boundaries_moved_apart_leave_nothing_empty_and_keep_those_that_were_apart(
    inner: list[int], extra: int
) -> None:
    total = max(max(inner), len(inner) + 1) + extra
    boundaries = np.array([0, *sorted(inner), total], dtype=np.int64)
    moved = at_least_one_apart(boundaries, total)
    assert (moved[0], moved[-1]) == (0, total)
    assert np.diff(moved).min() >= 1
    if np.diff(boundaries).min() >= 1:
        assert moved.tolist() == boundaries.tolist()


@given(fragment_lists(max_fragments=10, max_rows=20), st.data())
def test_any_sorted_boundaries_are_cut_where_they_say(fragments: tuple[Fragment, ...], data: st.DataObject) -> None:
    total = total_rows(fragments)
    assume(total)
    inner = data.draw(st.sets(st.integers(1, total), max_size=6)) - {total}
    boundaries = np.array([0, *sorted(inner), total], dtype=np.int64)
    rows = np.array([fragment.rows for fragment in fragments], dtype=np.int64)
    plan = cut_at("any", rows, boundaries)
    assert plan.worker_rows.tolist() == np.diff(boundaries).tolist()


@pytest.mark.parametrize("boundaries", [[1, 10], [0, 9], [0, 7, 3, 10]])
def test_boundaries_that_do_not_run_from_the_first_row_to_the_last_are_refused(boundaries: list[int]) -> None:
    with pytest.raises(PlanError):
        cut_at("any", np.array([4, 6]), np.array(boundaries))

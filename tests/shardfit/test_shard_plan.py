"""A plan that exists covers each row once; anything else is refused when it is made."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardfit.errors import PlanError
from shardfit.shard_plan import ShardPlan, World
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import Fragment
from shardfit.testing.strategies import fragment_lists, worlds

FRAGMENTS = (Fragment("a", 0, 4), Fragment("a", 1, 0), Fragment("b", 0, 6))


def plan_fields(**changes: Any) -> dict[str, Any]:
    """Two workers, five rows each: the plan of FRAGMENTS by rows, with columns replaced."""
    fields: dict[str, Any] = {
        "strategy": "rows",
        "fragment_rows": [4, 0, 6],
        "worker_offsets": [0, 2, 3],
        "slice_fragment": [0, 2, 2],
        "slice_start": [0, 0, 1],
        "slice_stop": [4, 1, 6],
    }
    return fields | changes


def test_the_plan_that_the_other_tests_break_is_whole() -> None:
    assert ShardPlan(**plan_fields()) == shard_by_rows(FRAGMENTS, World(2))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"slice_start": [0, 0, 0]}, "rows 0 to 1 of fragment 2 are in two shards"),
        ({"slice_stop": [4, 2, 6]}, "rows 1 to 2 of fragment 2 are in two shards"),
        ({"slice_start": [0, 0, 2]}, "rows 1 to 2 of fragment 2 are in no shard"),
        ({"slice_start": [1, 0, 1]}, "rows 0 to 1 of fragment 0 are in no shard"),
        ({"slice_stop": [4, 1, 5]}, "5 of the 6 rows of fragment 2 are planned"),
        ({"slice_stop": [4, 1, 7]}, "7 of the 6 rows of fragment 2 are planned"),
        ({"fragment_rows": [4, 3, 6]}, "0 of the 3 rows of fragment 1 are planned"),
        ({"fragment_rows": [4, -1, 6]}, "negative number of rows"),
        ({"fragment_rows": [2**62, 2**62, 2**62]}, "more rows than 64 bits can number"),
        ({"slice_fragment": [0, 2, 3]}, "a fragment that does not exist"),
        ({"slice_fragment": [-1, 2, 2]}, "a fragment that does not exist"),
        ({"slice_stop": [4, 0, 6]}, "a slice is empty or runs backwards"),
        ({"slice_stop": [4, 1]}, "the slice columns differ in length"),
        ({"worker_offsets": [0, 2]}, "worker_offsets do not divide 3 slices"),
        ({"worker_offsets": [1, 2, 3]}, "worker_offsets do not divide 3 slices"),
        ({"worker_offsets": [0, 3, 2, 3]}, "worker_offsets do not divide 3 slices"),
        ({"worker_offsets": [3]}, "worker_offsets do not divide 3 slices"),
        ({"worker_offsets": [0, 3, 3]}, "worker 1 of 2 has no rows"),
        (
            {"slice_fragment": [2, 0, 2], "slice_start": [0, 0, 1], "slice_stop": [1, 4, 6]},
            "slice 1 comes before the one ahead of it",
        ),
        ({"slice_stop": [4, 1.5, 6]}, "slice_stop is no list of whole 64-bit numbers"),
        ({"slice_stop": [4, True, None]}, "slice_stop is no list of whole 64-bit numbers"),
        ({"slice_stop": [4, 1, 2**63]}, "slice_stop is no list of whole 64-bit numbers"),
        ({"slice_stop": [[4, 1], 6]}, "slice_stop is no list of whole numbers"),
        ({"slice_stop": 6}, "slice_stop is no list of whole 64-bit numbers"),
        ({"strategy": 3}, "the name of the strategy is 3"),
    ],
)
def test_a_broken_plan_is_refused_and_says_where(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(PlanError) as caught:
        ShardPlan(**plan_fields(**changes))
    assert found in str(caught.value)
    text = json.dumps(plan_fields(**changes))
    with pytest.raises(PlanError):
        ShardPlan.from_json(text)


@st.composite
def mutated_plans(draw: st.DrawFn) -> dict[str, Any]:
    """A plan with one slice stretched, shrunk, shifted, left out, repeated, or given to another fragment."""
    fragments = draw(fragment_lists(max_fragments=20, max_rows=10**9, min_fragments=1))
    assume(any(fragment.rows for fragment in fragments))
    fields: dict[str, Any] = json.loads(shard_by_rows(fragments, draw(worlds(50))).to_json())
    i = draw(st.integers(0, len(fields["slice_start"]) - 1))
    step = draw(st.integers(1, 10**9)) * draw(st.sampled_from([-1, 1]))
    match draw(st.sampled_from(["start", "stop", "both", "drop", "repeat"])):
        case "drop":
            for name in ("slice_fragment", "slice_start", "slice_stop"):
                del fields[name][i]
            fields["worker_offsets"] = [offset - (offset > i) for offset in fields["worker_offsets"]]
        case "repeat":
            for name in ("slice_fragment", "slice_start", "slice_stop"):
                fields[name].insert(i, fields[name][i])
            fields["worker_offsets"] = [offset + (offset > i) for offset in fields["worker_offsets"]]
        case ends:
            if ends != "stop":
                fields["slice_start"][i] += step
            if ends != "start":
                fields["slice_stop"][i] += step
    return fields


@given(mutated_plans())
def test_no_plan_with_an_overlap_or_a_hole_can_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        ShardPlan(**fields)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"strategy": "rows"}', '{"fragment_rows": [1', "null"])
def test_json_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="reading a shard plan from JSON"):
        ShardPlan.from_json(text)


def test_json_with_a_key_too_many_is_refused() -> None:
    with pytest.raises(PlanError, match="it has not the keys"):
        ShardPlan.from_json(json.dumps(plan_fields(workers=2)))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_copied_plan_is_equal_and_as_frozen(again: Any) -> None:
    plan = ShardPlan(**plan_fields())
    twin = again(plan)
    assert twin == plan
    assert hash(twin) == hash(plan)
    with pytest.raises(ValueError, match="read-only"):
        twin.slice_start[0] = 1


def test_a_plan_does_not_change_with_the_array_that_it_was_made_from() -> None:
    rows = np.array([4, 0, 6])
    plan = ShardPlan(**plan_fields(fragment_rows=rows))
    rows[0] = 5
    assert plan.fragment_rows.tolist() == [4, 0, 6]


def test_plans_that_differ_in_one_place_differ_in_their_digest() -> None:
    fields = [plan_fields(), plan_fields(strategy="bytes"), plan_fields(slice_stop=[4, 2, 6], slice_start=[0, 0, 2])]
    assert len({ShardPlan(**each).digest for each in fields}) == 3


def test_a_plan_is_not_equal_to_something_else() -> None:
    assert ShardPlan(**plan_fields()) != "rows"


def test_a_shard_knows_its_fragments_and_their_global_rows() -> None:
    first, second = ShardPlan(**plan_fields()).shards(FRAGMENTS)
    assert [(piece.fragment, piece.start, piece.stop, piece.first_row) for piece in first.slices] == [
        (FRAGMENTS[0], 0, 4, 0),
        (FRAGMENTS[2], 0, 1, 4),
    ]
    assert [(piece.fragment_index, piece.first_row, piece.rows) for piece in second.slices] == [(2, 5, 5)]
    assert (first.rows, second.rows, second.total_rows) == (5, 5, 10)


def test_a_worker_beyond_the_plan_has_an_empty_shard() -> None:
    shard = ShardPlan(**plan_fields()).shard(2, FRAGMENTS)
    assert (shard.worker, shard.slices, shard.rows, shard.total_rows) == (2, (), 0, 10)


def test_a_negative_worker_is_refused() -> None:
    with pytest.raises(PlanError, match="numbered from 0"):
        ShardPlan(**plan_fields()).shard(-1, FRAGMENTS)


def test_fragments_of_another_dataset_are_refused() -> None:
    plan = ShardPlan(**plan_fields())
    with pytest.raises(PlanError, match="found 2 fragments"):
        plan.shard(0, FRAGMENTS[:2])
    with pytest.raises(PlanError, match="it has 7 rows and the plan counts 6"):
        plan.shard(1, (*FRAGMENTS[:2], Fragment("b", 0, 7)))


def test_first_rows_has_one_entry_for_each_fragment() -> None:
    assert ShardPlan(**plan_fields()).first_rows.tolist() == [0, 4, 4]
    assert shard_by_rows([], World(3)).first_rows.tolist() == []


def test_shards_need_not_adjoin_for_a_plan_to_be_whole() -> None:
    fields = plan_fields(
        fragment_rows=[4],
        slice_fragment=[0, 0, 0],
        slice_start=[0, 3, 1],
        slice_stop=[1, 4, 3],
        worker_offsets=[0, 2, 3],
    )
    assert ShardPlan(**fields).worker_rows.tolist() == [2, 2]


def test_a_world_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0"):
        World(0)


def test_a_fragment_with_fewer_than_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="found -1 for 'a'"):
        Fragment("a", 0, -1)

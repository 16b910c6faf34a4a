"""The engine's decisions that need no cluster: where a slot is placed, and which failure is the one to report."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.engines.failures import Failure, explains_others, reason_of_death, root_cause
from shardfit.engines.machine import LOCAL_NODE
from shardfit.engines.placement import Member, in_order, place
from shardfit.errors import DataError, InfeasibleRequestError, RunCancelledError, WorkerError, WorkerLostError
from shardfit.scaling import WorkerLayout, WorkerSlot

DATA = Failure(3, DataError("reading a.parquet", "a page is corrupt"))
LOST = Failure(1, WorkerLostError("running worker 1", "it is gone"), seen_lost=True)
CANCELLED = Failure(4, RunCancelledError("training", "asked to stop"))
PEER_LOST = Failure(2, WorkerLostError("training", "a peer is gone"))
FAILED = Failure(0, WorkerError("running worker 0", "ZeroDivisionError: division by zero"))
FROM_CAUSE_TO_CONSEQUENCE = [DATA, LOST, CANCELLED, FAILED, PEER_LOST]


@given(st.permutations(FROM_CAUSE_TO_CONSEQUENCE), st.integers(1, 5))
def test_the_root_cause_is_found_in_whatever_order_failures_arrive(arrived: list[Failure], count: int) -> None:
    known = arrived[:count]
    assert root_cause(known) is min(known, key=FROM_CAUSE_TO_CONSEQUENCE.index)


def test_of_two_equal_failures_the_first_to_arrive_is_reported() -> None:
    second = Failure(9, DataError("reading b.parquet", "a page is corrupt"))
    assert root_cause([FAILED, second, DATA]) is second


def test_only_what_needs_no_explanation_ends_the_wait_for_other_failures() -> None:
    assert [explains_others(failure) for failure in FROM_CAUSE_TO_CONSEQUENCE] == [True, True, False, False, False]


def test_the_reason_of_a_death_leaves_out_ids_and_advice_about_ray() -> None:
    message = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: _Worker\n\tactor_id: 0f\n\tpid: 12\n"
        "The actor is dead because its worker process has died. (3) SIGSEGV.\n"
        "If the process was killed by the kernel OOM killer, consider a setting."
    )
    assert reason_of_death(message) == "The actor is dead because its worker process has died. (3) SIGSEGV."


members = st.lists(
    st.builds(
        Member,
        identity=st.text("0123456789abcdef", min_size=12, max_size=12),
        address=st.ip_addresses(v=4).map(str),
        resources=st.fixed_dictionaries({"CPU": st.sampled_from([0.0, 0.5, 1.0, 4.0])}, optional={"GPU": st.just(1.0)}),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda member: member.identity[:8],
)


@given(members, st.data())
def test_slots_are_placed_on_the_nodes_they_name_or_refused_when_they_need_more_than_there_is(
    found: list[Member], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(found), st.integers(1, 3)), min_size=1, max_size=5))
    slots = tuple(WorkerSlot(rank, member.node.name, cpus) for rank, (member, cpus) in enumerate(chosen))
    required = Counter[str]()
    for member, cpus in chosen:
        required[member.identity] += cpus
    layout = WorkerLayout("ray", slots, ("A test asks for it.",))
    if all(required[member.identity] <= member.resources["CPU"] for member in found):
        assert place(layout, found, here=found[0].identity) == [member for member, _ in chosen]
    else:
        with pytest.raises(InfeasibleRequestError, match="CPUs are required on node"):
            place(layout, found, here=found[0].identity)


@given(members, st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_depend_on_the_order_in_which_the_cluster_lists_them(
    found: list[Member], random: object
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert in_order(shuffled) == in_order(found)


def test_nodes_sort_by_the_numbers_of_their_addresses() -> None:
    found = [
        Member("a", "10.0.0.10", {}),
        Member("b", "10.0.0.9", {}),
        Member("c", "fd00::1", {}),
        Member("d", "x", {}),
    ]
    assert [member.address for member in in_order(found)] == ["x", "10.0.0.9", "10.0.0.10", "fd00::1"]


def test_a_layout_that_was_decided_before_there_was_a_cluster_means_the_node_of_the_driver() -> None:
    found = [Member("a" * 12, "10.0.0.1", {"CPU": 2.0}), Member("b" * 12, "10.0.0.2", {"CPU": 2.0})]
    layout = WorkerLayout("ray", (WorkerSlot(0, LOCAL_NODE, 2),), ("A test asks for it.",))
    assert place(layout, found, here="b" * 12) == [found[1]]

"""The default policy: never over capacity, all of the cluster for large data, and always a reason."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardfit.default_scaling import SMALL_BYTES, SMALL_ROWS, DefaultScalingPolicy
from shardfit.errors import InfeasibleRequestError, PlanError
from shardfit.scaling import (
    ClusterResources,
    Node,
    Resize,
    ScalingPolicy,
    ScalingRequest,
    WorkerLayout,
    WorkerSlot,
)
from shardfit.testing.strategies import clusters, scaling_requests

POLICY: ScalingPolicy = DefaultScalingPolicy()
ALL = st.just(-1)
LARGE = {"rows": 10**8, "bytes": 10**10}
SMALL = {"rows": 1000, "bytes": 8000}


def node(name: str, cpus: float, gpus: float = 0.0, memory: int = 0) -> Node:
    return Node(name, f"address of {name}", cpus, gpus, memory)


def on_ray(*nodes: Node) -> ClusterResources:
    return ClusterResources(nodes, "ray")


def machine(cpus: float, gpus: float = 0.0, memory: int = 0) -> ClusterResources:
    return ClusterResources((node("here", cpus, gpus, memory),), "inline")


def whole_cpus(cluster: ClusterResources, place: Node) -> int:
    return max(math.floor(place.cpus), 1) if cluster.engine == "inline" else math.floor(place.cpus)


def room(cluster: ClusterResources, place: Node, request: ScalingRequest, gpu: bool) -> int:
    """Workers that fit, counted one by one: the second route to what the policy works out by division."""
    cpus, gpus, fit = whole_cpus(cluster, place), place.gpus, 0
    each = 1 if request.cpus_per_worker == -1 else request.cpus_per_worker
    while cpus >= each and (not gpu or gpus >= 1):
        cpus, gpus, fit = cpus - each, gpus - 1, fit + 1
    return fit


def rooms(cluster: ClusterResources, request: ScalingRequest, gpu: bool) -> dict[str, int]:
    return {place.name: room(cluster, place, request, gpu) for place in cluster.nodes}


def decided(cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
    """The layout, where there is one; Hypothesis draws again where the request is infeasible."""
    try:
        return POLICY.decide(cluster, request)
    except InfeasibleRequestError:
        assume(False)
        raise


def totals(layout: WorkerLayout) -> tuple[int, int]:
    return layout.workers, sum(slot.cpus for slot in layout.slots)


@given(clusters(), scaling_requests())
def test_a_request_is_refused_with_numbers_exactly_when_it_does_not_fit(
    cluster: ClusterResources, request: ScalingRequest
) -> None:
    fit = sum(rooms(cluster, request, gpu=request.use_gpu is True).values())
    required = max(1, request.workers)
    if required <= fit:
        POLICY.decide(cluster, request)
        return
    with pytest.raises(InfeasibleRequestError) as caught:
        POLICY.decide(cluster, request)
    assert f"placing {required:,} worker" in caught.value.asked
    assert f"{sum(place.cpus for place in cluster.nodes):g} CPU" in caught.value.found
    assert caught.value.found.endswith(f"; {fit} fit")
    assert caught.value.advice.endswith(".")


@given(clusters(engines=("ray",)), scaling_requests(workers=st.integers(1, 300)))
def test_workers_asked_for_are_spread_evenly_as_far_as_there_is_room(
    cluster: ClusterResources, request: ScalingRequest
) -> None:
    layout = decided(cluster, request)
    capacity = rooms(cluster, request, layout.uses_gpu)
    placed = Counter(slot.node for slot in layout.slots)
    most = max(placed.values())
    assert all(placed[name] >= min(most - 1, capacity[name]) for name in capacity)


@given(clusters(), scaling_requests())
def test_workers_of_one_node_have_equal_shares(cluster: ClusterResources, request: ScalingRequest) -> None:
    layout = decided(cluster, request)
    shares = {slot.node: (slot.cpus, slot.memory) for slot in layout.slots}
    assert all((slot.cpus, slot.memory) == shares[slot.node] for slot in layout.slots)
    assert [slot.rank for slot in layout.slots] == list(range(layout.workers))
    order = {place.name: i for i, place in enumerate(cluster.nodes)}
    assert [order[slot.node] for slot in layout.slots] == sorted(order[slot.node] for slot in layout.slots)


@given(clusters(engines=("ray",)), clusters(1, 1, engines=("ray",)), scaling_requests(workers=ALL), st.data())
def test_one_node_more_never_means_fewer_workers_or_cpus(
    cluster: ClusterResources, single: ClusterResources, request: ScalingRequest, data: st.DataObject
) -> None:
    before = decided(cluster, request)
    more = list(cluster.nodes)
    extra = single.nodes[0]
    more.insert(data.draw(st.integers(0, len(more))), node("extra", extra.cpus, extra.gpus, extra.memory))
    after = POLICY.decide(on_ray(*more), request)
    # Where the node brings the first GPU, fewer workers on GPUs take the place of more on CPUs.
    assume(before.uses_gpu == after.uses_gpu)
    assert totals(after) >= totals(before)
    assert totals(after)[1] >= totals(before)[1]


@given(clusters(engines=("ray",)), scaling_requests(workers=ALL, use_gpu=(False,)))
def test_all_means_every_whole_cpu_of_a_cluster_for_large_data(
    cluster: ClusterResources, request: ScalingRequest
) -> None:
    layout = decided(cluster, ScalingRequest(use_gpu=False, **LARGE))
    assert {slot.node: slot.cpus for slot in layout.slots} == {
        place.name: math.floor(place.cpus) for place in cluster.nodes if place.cpus >= 1
    }
    many = decided(cluster, ScalingRequest(cpus_per_worker=request.cpus_per_worker, use_gpu=False, **LARGE))
    if request.cpus_per_worker != -1:
        assert many.workers == sum(rooms(cluster, request, gpu=False).values())


@given(clusters(engines=("ray",)))
def test_all_means_every_gpu_that_a_whole_cpu_can_feed(cluster: ClusterResources) -> None:
    request = ScalingRequest(use_gpu=True, **LARGE)
    layout = decided(cluster, request)
    assert layout.workers == sum(rooms(cluster, request, gpu=True).values())


@given(
    clusters(engines=("ray",)),
    scaling_requests(workers=ALL),
    st.integers(1, SMALL_ROWS - 1),
    st.integers(1, SMALL_BYTES - 1),
)
def test_small_data_has_one_worker_on_the_largest_node_that_fits(
    cluster: ClusterResources, drawn: ScalingRequest, rows: int, size: int
) -> None:
    request = replace(drawn, rows=rows, bytes=size)
    layout = decided(cluster, request)
    assert (layout.engine, layout.workers) == ("ray", 1)
    assert any("The data is small" in reason for reason in layout.reasons)
    capacity = rooms(cluster, request, layout.uses_gpu)
    by_name = {place.name: math.floor(place.cpus) for place in cluster.nodes}
    assert by_name[layout.slots[0].node] == max(by_name[name] for name in capacity if capacity[name])


@pytest.mark.parametrize(
    "size",
    [
        {"rows": SMALL_ROWS, "bytes": 1},
        {"rows": 1, "bytes": SMALL_BYTES},
        {"rows": 0, "bytes": 0},
        {"rows": 1, "bytes": 0},
    ],
)
def test_data_of_a_size_that_is_unknown_or_at_a_limit_is_not_small(size: dict[str, int]) -> None:
    assert POLICY.decide(on_ray(node("a", 2), node("b", 2)), ScalingRequest(**size)).workers == 2


def test_the_limits_of_small_data_can_be_set() -> None:
    policy = DefaultScalingPolicy(small_bytes=10, small_rows=10)
    assert policy.decide(on_ray(node("a", 2), node("b", 2)), ScalingRequest(**SMALL)).workers == 2


def test_small_data_is_scaled_out_where_workers_are_asked_for() -> None:
    assert POLICY.decide(on_ray(node("a", 2), node("b", 2)), ScalingRequest(workers=2, **SMALL)).workers == 2


@given(clusters(), scaling_requests())
def test_reasons_are_sentences_that_name_the_device(cluster: ClusterResources, request: ScalingRequest) -> None:
    layout = decided(cluster, request)
    assert all(reason.endswith(".") for reason in layout.reasons)
    device = [reason for reason in layout.reasons if f"use_gpu={request.use_gpu}" in reason]
    assert len(device) == 1
    assert device[0].startswith("GPUs" if layout.uses_gpu else "CPUs only")


@given(clusters(engines=("inline",)), scaling_requests())
def test_without_a_cluster_ray_is_started_only_for_several_workers(
    cluster: ClusterResources, request: ScalingRequest
) -> None:
    layout = decided(cluster, request)
    assert layout.engine == ("ray" if request.workers > 1 else "inline")


def test_one_machine_uses_all_its_cpus_in_this_process() -> None:
    layout = POLICY.decide(machine(7.5, memory=100), ScalingRequest(**LARGE))
    assert layout.engine == "inline"
    assert layout.slots == (WorkerSlot(0, "here", cpus=7, memory=100),)
    assert "Ray is not started" in layout.reasons[0]


def test_one_machine_with_a_share_of_a_cpu_still_trains() -> None:
    assert POLICY.decide(machine(0.5), ScalingRequest()).slots[0].cpus == 1


def test_one_machine_divides_its_cpus_and_memory_between_the_workers_asked_for() -> None:
    layout = POLICY.decide(machine(8, memory=100), ScalingRequest(workers=3))
    assert layout.slots == tuple(WorkerSlot(rank, "here", cpus=2, memory=33) for rank in range(3))
    assert "3 workers asked for, on this machine." in layout.reasons


def test_one_machine_refuses_more_workers_than_cpus() -> None:
    with pytest.raises(InfeasibleRequestError) as caught:
        POLICY.decide(machine(2), ScalingRequest(workers=3))
    assert str(caught.value) == (
        "placing 3 workers of at least 1 CPU: this machine has 2 CPUs (2 on the largest node) and 0 GPUs; 2 fit. "
        "Ask for at most 2 workers, or add nodes."
    )


def test_one_machine_with_several_gpus_says_how_to_use_them_all() -> None:
    layout = POLICY.decide(machine(8, gpus=4), ScalingRequest())
    assert (layout.engine, layout.slots[0].gpus) == ("inline", 1)
    assert "Ask for 4 workers to use every GPU." in layout.reasons[0]


def test_more_workers_than_nodes_share_nodes_the_largest_first() -> None:
    layout = POLICY.decide(on_ray(node("a", 4), node("b", 0.9), node("c", 9)), ScalingRequest(workers=3))
    assert [(slot.node, slot.cpus) for slot in layout.slots] == [("a", 4), ("c", 4), ("c", 4)]


def test_fewer_workers_than_nodes_take_the_largest_nodes_in_the_order_of_the_cluster() -> None:
    layout = POLICY.decide(on_ray(node("a", 4), node("b", 2), node("c", 9)), ScalingRequest(workers=2))
    assert [slot.node for slot in layout.slots] == ["a", "c"]


def test_gpus_are_used_where_there_are_any_and_it_is_said() -> None:
    layout = POLICY.decide(on_ray(node("a", 16), node("b", 8, gpus=2)), ScalingRequest(**LARGE))
    assert [(slot.node, slot.cpus, slot.gpus) for slot in layout.slots] == [("b", 4, 1), ("b", 4, 1)]
    assert layout.reasons == ("One worker for each of 2 GPUs on 1 node.", "GPUs: 2 GPUs found (use_gpu=None).")


def test_gpus_that_the_request_does_not_fit_on_are_left_and_it_is_said() -> None:
    layout = POLICY.decide(on_ray(node("a", 16), node("b", 8, gpus=2)), ScalingRequest(workers=3))
    assert not layout.uses_gpu
    assert "3 workers asked for, one GPU each, and 2 GPUs found" in layout.reasons[1]


def test_gpus_asked_for_where_there_are_none_are_refused() -> None:
    with pytest.raises(InfeasibleRequestError, match=r"1 CPU and 1 GPU: .* 0 GPUs; 0 fit. Set use_gpu=False"):
        POLICY.decide(on_ray(node("a", 16)), ScalingRequest(use_gpu=True))


def test_a_cluster_without_nodes_is_refused() -> None:
    with pytest.raises(InfeasibleRequestError, match="the cluster has 0 nodes"):
        POLICY.decide(on_ray(), ScalingRequest())


@given(clusters(min_nodes=1, engines=("ray",)), scaling_requests(), st.data())
def test_after_a_loss_the_run_goes_on_with_what_is_left_on_the_same_device(
    cluster: ClusterResources, request: ScalingRequest, data: st.DataObject
) -> None:
    lost = decided(cluster, request)
    gone = data.draw(st.sets(st.sampled_from([place.name for place in cluster.nodes])))
    left = on_ray(*(place for place in cluster.nodes if place.name not in gone))
    fit = sum(rooms(left, request, lost.uses_gpu).values())
    if not fit:
        with pytest.raises(InfeasibleRequestError):
            POLICY.after_loss(left, request, lost)
        return
    decision = POLICY.after_loss(left, request, lost)
    assert isinstance(decision, Resize)
    assert decision.layout.uses_gpu == lost.uses_gpu
    assert not {slot.node for slot in decision.layout.slots} & gone
    if request.workers != -1:
        assert decision.layout.workers == min(request.workers, fit)
    assert f"it had {lost.workers}." in decision.layout.reasons[0]


def test_after_a_loss_a_gpu_run_does_not_go_on_without_gpus() -> None:
    request = ScalingRequest(**LARGE)
    lost = POLICY.decide(on_ray(node("a", 16), node("b", 8, gpus=2)), request)
    with pytest.raises(InfeasibleRequestError, match="Set use_gpu=False"):
        POLICY.after_loss(on_ray(node("a", 16)), request, lost)


def test_after_a_loss_a_cpu_run_does_not_move_to_gpus_that_it_now_fits_on() -> None:
    request = ScalingRequest(workers=3)
    gpus = node("b", 2, gpus=2)
    lost = POLICY.decide(on_ray(node("a", 16), gpus), request)
    decision = POLICY.after_loss(on_ray(gpus), request, lost)
    assert isinstance(decision, Resize)
    assert (decision.layout.workers, decision.layout.uses_gpu) == (2, False)


@pytest.mark.parametrize("field", ["workers", "cpus_per_worker"])
@pytest.mark.parametrize("value", [0, -2])
def test_a_request_that_means_nothing_is_refused(field: str, value: int) -> None:
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"found {value}"):
        ScalingRequest(**wrong)


def test_a_request_for_fewer_than_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        ScalingRequest(rows=-1)


@pytest.mark.parametrize(
    ("engine", "ranks", "reasons", "found"),
    [
        ("ray", [], ("why",), "not ranks 0 to n - 1"),
        ("ray", [0, 2], ("why",), "not ranks 0 to n - 1"),
        ("inline", [0, 1], ("why",), "2 workers for the inline engine"),
        ("ray", [0], (), "no reason is given"),
    ],
)
def test_a_layout_that_breaks_its_rules_is_refused(
    engine: Any, ranks: list[int], reasons: tuple[str, ...], found: str
) -> None:
    with pytest.raises(PlanError, match=found):
        WorkerLayout(engine, tuple(WorkerSlot(rank, "a", 1) for rank in ranks), reasons)


def test_a_layout_shrinks_to_its_first_workers_and_says_so() -> None:
    layout = POLICY.decide(machine(8), ScalingRequest(workers=4))
    assert layout.first(4) is layout
    assert [slot.rank for slot in layout.first(2).slots] == [0, 1]
    assert layout.first(2).reasons[-1] == "The data fills 2 of 4 workers."

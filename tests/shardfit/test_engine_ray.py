"""What the Ray engine promises, on a real cluster: results, events, errors, losses, and an end without leftovers."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardfit import Job, train
from shardfit.cancellation import Cancellation
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.engines import current_resources, make_engine
from shardfit.engines import ray as ray_engine
from shardfit.engines.machine import LOCAL_NODE, process_exists
from shardfit.engines.ray import RayEngine
from shardfit.errors import (
    ChangedDataError,
    InfeasibleRequestError,
    InvalidArgumentError,
    InvalidValueError,
    RunCancelledError,
    WorkerError,
    WorkerLostError,
)
from shardfit.events import CheckpointOffered, Event, MetricsReported, PlanMade, Progress
from shardfit.run_record import list_records
from shardfit.scaling import WorkerLayout, WorkerSlot
from shardfit.stores.local import LocalStore

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("lasting_ray_address")]


def layout_of(*cpus: int, node: str = LOCAL_NODE) -> WorkerLayout:
    slots = tuple(WorkerSlot(rank, node, count) for rank, count in enumerate(cpus))
    return WorkerLayout("ray", slots, ("A test asks for it.",))


@pytest.fixture
def group() -> Iterator[WorkerGroup]:
    with make_engine("ray").start(layout_of(1, 1), attempt=3) as started:
        yield started


def ignore(event: Event) -> None:
    pass


def describe(context: WorkerContext, *values: Any) -> dict[str, Any]:
    return {
        "rank": context.rank,
        "world_size": context.world_size,
        "attempt": context.attempt,
        "values": values,
        "thread": threading.get_ident(),
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def pids_of(group: WorkerGroup) -> list[int]:
    return [found["pid"] for found in group.run(describe, [()] * group.layout.workers, ignore)]


def test_libraries_are_told_to_use_the_cpus_of_the_slot() -> None:
    with make_engine("ray").start(layout_of(3, 1)) as group:
        assert [one["threads"] for one in group.run(describe, [(), ()], ignore)] == ["3", "1"]


def report_rounds(context: WorkerContext, rounds: int) -> None:
    for done in range(rounds):
        context.progress("fit", done, rounds)
        context.report(done, {"train-rmse": float(done)})


def offer_model(context: WorkerContext, size: int) -> None:
    context.offer_checkpoint(7, {"model": bytes(size)})


def buffer_address(context: WorkerContext, table: pa.Table, again: pa.Table) -> tuple[int, int, int]:
    return table.num_rows, table["x"].chunk(0).buffers()[1].address, again["x"].chunk(0).buffers()[1].address


@pytest.fixture(scope="class")
def lasting(lasting_ray_address: str) -> Iterator[WorkerGroup]:
    with make_engine("ray").start(layout_of(1, 1), attempt=3) as started:
        yield started


class TestOneGroup:
    """What leaves the workers as they were needs them only once."""

    def test_results_come_by_rank_with_each_worker_given_its_own_arguments(self, lasting: WorkerGroup) -> None:
        found = lasting.run(describe, [("a", 1), ("b", 2)], ignore)
        assert [(one["rank"], one["world_size"], one["attempt"], one["values"]) for one in found] == [
            (0, 2, 3, ("a", 1)),
            (1, 2, 3, ("b", 2)),
        ]
        assert len({one["pid"] for one in found} | {os.getpid()}) == 3

    def test_every_task_of_a_worker_runs_on_the_same_thread(self, lasting: WorkerGroup) -> None:
        first, second = (lasting.run(describe, [(), ()], ignore) for _ in range(2))
        assert [one["thread"] for one in first] == [one["thread"] for one in second]

    def test_every_event_arrives_once_and_in_the_order_of_its_worker(self, lasting: WorkerGroup) -> None:
        events: list[Event] = []
        lasting.run(report_rounds, [(2500,), (2500,)], events.append)
        for rank in range(2):
            steps = [event.done for event in events if isinstance(event, Progress) and event.worker == rank]
            assert steps == list(range(2500))
        assert [event.round for event in events if isinstance(event, MetricsReported)] == list(range(2500))

    def test_a_checkpoint_of_fifty_megabytes_arrives_whole_and_from_one_worker_only(self, lasting: WorkerGroup) -> None:
        events: list[Event] = []
        lasting.run(offer_model, [(50_000_000,), (50_000_000,)], events.append)
        (offered,) = events
        assert isinstance(offered, CheckpointOffered)
        assert offered.files == {"model": bytes(50_000_000)}

    def test_a_shared_table_reaches_workers_by_reference_and_is_not_copied(self, lasting: WorkerGroup) -> None:
        shared = lasting.share(pa.table({"x": pa.array(range(1_000_000), pa.int64())}))
        found = lasting.run(buffer_address, [(shared, shared), (shared, shared)], ignore)
        assert [rows for rows, _, _ in found] == [1_000_000, 1_000_000]
        # Two copies could not lie in one place.
        assert all(one == two for _, one, two in found)


def wait_for_the_wish(context: WorkerContext) -> str:
    context.progress("fit", 0, 1)
    while not context.should_stop():
        time.sleep(0.01)
    return "stopped"


def test_workers_learn_that_they_should_stop(group: WorkerGroup) -> None:
    assert group.run(wait_for_the_wish, [(), ()], lambda event: group.ask_to_stop()) == ["stopped", "stopped"]


def find_bad_value(context: WorkerContext) -> None:
    raise InvalidValueError("reading the label", "found nan in row 17", "Drop the row.")


def test_an_error_of_shardfit_arrives_as_it_was_raised(group: WorkerGroup) -> None:
    with pytest.raises(InvalidValueError) as caught:
        group.run(find_bad_value, [(), ()], ignore)
    assert caught.value.args == ("reading the label", "found nan in row 17", "Drop the row.")


def divide(context: WorkerContext, number: int) -> float:
    return 1 / number


def test_any_other_error_names_rank_and_process_and_shows_the_remote_traceback(group: WorkerGroup) -> None:
    pid = pids_of(group)[1]
    with pytest.raises(WorkerError, match="ZeroDivisionError: division by zero") as caught:
        group.run(divide, [(1,), (0,)], ignore)
    message = str(caught.value)
    assert f"worker 1 on node {LOCAL_NODE}" in message
    assert f"pid {pid}" in message
    assert "return 1 / number" in message


class CollectiveError(Exception):
    """As a library raises it when a peer has gone."""


def break_then_explain(context: WorkerContext) -> None:
    if context.rank == 0:
        raise CollectiveError("connection reset by peer")
    time.sleep(0.5)
    raise ChangedDataError("reading a.parquet", "it changed", "Plan again.")


def test_the_error_that_explains_a_broken_collective_is_raised_though_it_comes_later(group: WorkerGroup) -> None:
    with pytest.raises(ChangedDataError):
        group.run(break_then_explain, [(), ()], ignore)


def hang_unless_first(context: WorkerContext) -> None:
    if context.rank == 0:
        raise CollectiveError("connection reset by peer")
    while True:
        time.sleep(0.1)


def test_a_failure_is_raised_though_other_workers_hang(group: WorkerGroup) -> None:
    pids = pids_of(group)
    with pytest.raises(WorkerError, match="connection reset by peer"):
        group.run(hang_unless_first, [(), ()], ignore)
    assert not any(map(process_exists, pids))


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def crash() -> None:
    ctypes.string_at(0)


def die_or_miss_the_peer(context: WorkerContext, die: Callable[[], None]) -> None:
    if context.rank == 1:
        die()
    raise CollectiveError("connection reset by peer")


@pytest.mark.parametrize(("die", "cause", "signal_name"), [(be_killed, "killed", ""), (crash, "crashed", "SIGSEGV")])
def test_a_killed_worker_is_reported_as_lost_and_not_as_the_broken_collective_of_its_peer(
    group: WorkerGroup, die: Callable[[], None], cause: str, signal_name: str
) -> None:
    pid = pids_of(group)[1]
    events: list[Event] = []
    with pytest.raises(WorkerLostError, match="worker 1 on node") as caught:
        group.run(die_or_miss_the_peer, [(die,), (die,)], events.append)
    assert f"pid {pid}" in str(caught.value)
    assert (caught.value.cause, caught.value.signal, caught.value.pid) == (cause, signal_name, pid)
    # Told by the group itself, before it has stopped the others.
    assert [(event.name, getattr(event, "cause", "")) for event in events] == [("WorkerLost", cause)]


def leave(context: WorkerContext) -> None:
    os._exit(42)


def test_a_worker_that_leaves_without_a_word_is_lost(group: WorkerGroup) -> None:
    with pytest.raises(WorkerLostError, match="exit"):
        group.run(leave, [(), ()], ignore)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_stopped_is_given_up_and_ended(group: WorkerGroup, rank: int) -> None:
    pids = pids_of(group)

    def on_event(event: Event) -> None:
        if event.name == "Progress":
            os.kill(pids[rank], signal.SIGSTOP)

    with pytest.raises(WorkerLostError, match=f"worker {rank} .*stopped") as caught:
        group.run(wait_for_the_wish, [(), ()], on_event)
    assert caught.value.cause == "frozen"
    assert not any(map(process_exists, pids))


def test_what_can_not_be_pickled_is_refused_before_it_is_sent(group: WorkerGroup) -> None:
    with pytest.raises(InvalidArgumentError, match="pickle"):
        group.run(describe, [(threading.Lock(),), ()], ignore)


def return_lock(context: WorkerContext) -> Any:
    return threading.Lock()


def test_a_result_that_can_not_be_pickled_is_an_error_of_the_worker(group: WorkerGroup) -> None:
    with pytest.raises(WorkerError, match="pickle"):
        group.run(return_lock, [(), ()], ignore)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_what_an_observer_raises_ends_the_run_and_every_worker(
    group: WorkerGroup, interrupt: type[BaseException]
) -> None:
    pids = pids_of(group)

    def on_event(event: Event) -> None:
        raise interrupt

    with pytest.raises(interrupt):
        group.run(wait_for_the_wish, [(), ()], on_event)
    assert not any(map(process_exists, pids))


def test_stopping_ends_the_processes_and_may_be_done_twice(group: WorkerGroup) -> None:
    pids = pids_of(group)
    group.stop()
    group.stop()
    assert not any(map(process_exists, pids))


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (layout_of(4, 1), "5 CPUs are required on node 'local', which has 4"),
        (layout_of(1, node="10.9.9.9-00000000"), "placing worker 0 on node '10.9.9.9-00000000'"),
        (
            WorkerLayout("ray", (WorkerSlot(0, LOCAL_NODE, 1, gpus=1),), ("A test asks for it.",)),
            "1 GPUs are required on node 'local', which has 0",
        ),
    ],
)
def test_what_the_cluster_can_never_place_is_refused_at_once(layout: WorkerLayout, said: str) -> None:
    with pytest.raises(InfeasibleRequestError, match=said):
        make_engine("ray").start(layout)


def test_workers_that_wait_for_occupied_cpus_are_given_up_and_the_error_says_so(group: WorkerGroup) -> None:
    with pytest.raises(InfeasibleRequestError, match="1 of them did not start within 3 s"):
        RayEngine(os.environ, start_deadline_s=3.0).start(layout_of(1, 3))
    # What had started is gone: its CPU is free for others.
    with RayEngine(os.environ).start(layout_of(2)) as later:
        assert later.run(describe, [()], ignore)[0]["threads"] == "2"


def test_a_node_that_was_given_up_and_answers_again_is_used_again() -> None:
    engine = RayEngine(os.environ)
    cluster = engine.resources()
    (member,) = ray_engine._members()
    engine._suspects[member.identity] = time.monotonic()
    # The wait for an answer that did not come is not repeated at once.
    assert not engine.resources().nodes
    engine._suspects[member.identity] = time.monotonic() - 60.0
    assert engine.resources() == cluster
    assert not engine._suspects


def test_a_run_is_cancelled_while_its_workers_wait_to_start(group: WorkerGroup, tmp_path: Path) -> None:
    cancellation = Cancellation()

    def cancel_soon(event: Event) -> None:
        if isinstance(event, PlanMade):
            threading.Timer(1.0, cancellation.cancel).start()

    table = pa.table({"x": [float(i % 7) for i in range(100)], "y": [float(i % 3) for i in range(100)]})
    # Two of the four CPUs are taken by the workers of `group`.
    job = Job(
        trainer="xgboost",
        data=table,
        columns={"label": "y"},
        engine="ray",
        workers=1,
        cpus_per_worker=3,
        stage=str(tmp_path),
    )
    with pytest.raises(RunCancelledError, match="the run was cancelled"):
        train(job, observers=[cancel_soon], cancellation=cancellation)
    assert [record.status for record in list_records(LocalStore(tmp_path))] == ["cancelled"]
    assert [each["rank"] for each in group.run(describe, [(), ()], ignore)] == [0, 1]
    # Its worker does not wait any longer: once CPUs are free, all of them are.
    group.stop()
    with RayEngine(os.environ).start(layout_of(4)) as later:
        assert later.run(describe, [()], ignore)[0]["threads"] == "4"


def test_the_nodes_of_the_cluster_are_found_and_can_be_used_by_name() -> None:
    cluster = current_resources()
    (node,) = cluster.nodes
    assert (cluster.engine, node.cpus, node.gpus) == ("ray", 4.0, 0.0)
    assert node.memory > 0
    assert current_resources() == cluster
    with make_engine("ray").start(layout_of(1, node=node.name)) as group:
        assert group.address == node.address

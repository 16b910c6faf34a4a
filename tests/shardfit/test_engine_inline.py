"""The engine without a cluster, and what is found out about this machine."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from shardfit.engine import WorkerContext
from shardfit.engines import current_resources, find_cluster, make_engine
from shardfit.engines.discovery import has_token
from shardfit.engines.machine import LOCAL_NODE, cpu_quota, memory, process_exists, usable_cpus
from shardfit.errors import InfeasibleRequestError, InvalidArgumentError, InvalidValueError, WorkerError
from shardfit.events import Event
from shardfit.scaling import WorkerLayout, WorkerSlot

LAYOUT = WorkerLayout("inline", (WorkerSlot(0, LOCAL_NODE, 2),), ("A test asks for it.",))
NO_CLUSTER = {"RAY_TMPDIR": "/nowhere"}


def run(task: Any, *arguments: Any, on_event: Any = lambda event: None) -> Any:
    with make_engine("inline").start(LAYOUT, attempt=2) as group:
        shared = [group.share(argument) for argument in arguments]
        (result,) = group.run(task, [tuple(shared)], on_event)
        return result


def test_the_one_worker_runs_in_this_process_on_this_thread_with_the_very_objects() -> None:
    given = object()
    found = run(lambda context, value: (context, value, os.getpid(), threading.get_ident()), given)
    assert found[1:] == (given, os.getpid(), threading.get_ident())
    context = found[0]
    assert (context.rank, context.world_size, context.attempt, context.slot) == (0, 1, 2, LAYOUT.slots[0])


def test_events_are_observed_while_the_task_runs() -> None:
    seen: list[Event] = []

    def count(context: WorkerContext) -> list[int]:
        counts = []
        for done in range(3):
            context.progress("fit", done, 3)
            counts.append(len(seen))
        return counts

    assert run(count, on_event=seen.append) == [1, 2, 3]


def test_the_worker_learns_that_it_should_stop() -> None:
    with make_engine("inline").start(LAYOUT) as group:

        def ask(context: WorkerContext) -> tuple[bool, bool]:
            before = context.should_stop()
            context.progress("fit", 0, 1)
            return before, context.should_stop()

        assert group.run(ask, [()], lambda event: group.ask_to_stop()) == [(False, True)]


def test_an_error_of_shardfit_is_raised_as_it_is_and_any_other_as_a_worker_error() -> None:
    expected = InvalidValueError("reading the label", "found nan", "Drop it.")

    def fail(context: WorkerContext, error: Exception) -> None:
        raise error

    with pytest.raises(InvalidValueError) as caught:
        run(fail, expected)
    assert caught.value is expected
    with pytest.raises(WorkerError, match=r"KeyError: 'x'.*\n.*in fail|in fail") as wrapped:
        run(fail, KeyError("x"))
    assert isinstance(wrapped.value.__cause__, KeyError)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), LookupError("mine")])
@pytest.mark.parametrize("swallowed", [False, True])
def test_what_an_observer_raises_ends_the_run_even_if_a_library_swallows_it(
    raised: BaseException, swallowed: bool
) -> None:
    def on_event(event: Event) -> None:
        raise raised

    def task(context: WorkerContext) -> None:
        try:
            context.progress("fit", 0, 1)
        except BaseException:
            if not swallowed:
                raise

    with pytest.raises(type(raised)) as caught:
        run(task, on_event=on_event)
    assert caught.value is raised


def test_two_workers_are_refused() -> None:
    layout = WorkerLayout("ray", (WorkerSlot(0, LOCAL_NODE, 1), WorkerSlot(1, LOCAL_NODE, 1)), ("A test.",))
    with pytest.raises(InfeasibleRequestError, match="starting 2 workers in this process"):
        make_engine("inline").start(layout)


def test_an_engine_of_another_name_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'dask'"):
        make_engine("dask")  # type: ignore[arg-type]


def test_without_a_cluster_this_machine_alone_is_found() -> None:
    resources = current_resources(NO_CLUSTER)
    (node,) = resources.nodes
    assert (resources.engine, node.name, node.cpus) == ("inline", LOCAL_NODE, float(usable_cpus()))
    assert node.memory > 0


def test_an_address_that_nobody_answers_at_is_refused_and_named() -> None:
    with pytest.raises(InfeasibleRequestError, match=r"RAY_ADDRESS='127\.0\.0\.1:1'"):
        find_cluster({"RAY_ADDRESS": "127.0.0.1:1"})


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_that_gives_no_place_in_the_cluster_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="ray job submit"):
        find_cluster({"RAY_ADDRESS": address})


def test_a_cluster_that_was_left_behind_and_is_dead_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    assert find_cluster({"RAY_TMPDIR": str(tmp_path)}) is None
    with pytest.raises(InfeasibleRequestError, match="RAY_ADDRESS='auto'"):
        find_cluster({"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": "auto"})


def test_a_token_is_looked_for_where_ray_looks(tmp_path: Path) -> None:
    assert not has_token({"HOME": str(tmp_path)})
    assert has_token({"RAY_AUTH_TOKEN": "secret"})
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert has_token({"HOME": str(tmp_path)})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_the_container_are_respected_with_the_newer_control_groups(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/user/job\n")
    write(tmp_path / "proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\n")
    group = tmp_path / "sys/fs/cgroup"
    write(group / "user/job/cpu.max", "150000 100000\n")
    write(group / "user/job/memory.max", "max\n")
    write(group / "user/memory.max", "500000\n")
    assert cpu_quota(tmp_path) == 1.5
    assert usable_cpus(tmp_path) == 1
    assert memory(tmp_path) == 500_000


def test_limits_of_the_container_are_respected_with_the_older_control_groups(tmp_path: Path) -> None:
    # The path is the host's; inside the container only the topmost folder exists.
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/1f2e\n3:cpu,cpuacct:/docker/1f2e\n0::/docker/1f2e\n")
    write(tmp_path / "proc/meminfo", "MemTotal:  1000 kB\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", "600000\n")
    assert cpu_quota(tmp_path) == 3.0
    assert memory(tmp_path) == 600_000


def test_no_limit_is_not_a_limit(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/\n3:cpu:/\n0::/\n")
    write(tmp_path / "proc/meminfo", "MemTotal:  1000 kB\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "max 100000\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert cpu_quota(tmp_path) == float("inf")
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert memory(tmp_path) == 1_024_000


def test_where_nothing_is_known_of_memory_it_is_zero(tmp_path: Path) -> None:
    assert memory(tmp_path) == 0


def test_this_process_exists() -> None:
    assert process_exists(os.getpid())
    assert not process_exists(2**22 + 1)

"""The worker processes of the tests keep the engine's promises: results, events, errors, losses, no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.engines import current_resources
from shardfit.engines.machine import process_exists
from shardfit.errors import InvalidArgumentError, InvalidValueError, WorkerError, WorkerLostError
from shardfit.events import Event, MetricsReported, Progress
from shardfit.job import Job
from shardfit.scaling import WorkerLayout, WorkerSlot
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit.train import train
from tests.shardfit.worker_processes import ProcessGroup, training_on


def layout_of(workers: int) -> WorkerLayout:
    return WorkerLayout("ray", tuple(WorkerSlot(rank, "here", 1) for rank in range(workers)), ("A test asks for it.",))


def ignore(event: Event) -> None:
    pass


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    with ProcessGroup(layout_of(2), attempt=3) as started:
        yield started
    assert not [pid for pid in started.pids if process_exists(pid)]


def describe(context: WorkerContext, *values: Any) -> tuple[Any, ...]:
    return context.rank, context.world_size, context.attempt, values, os.getpid(), threading.get_ident()


def test_results_come_by_rank_from_processes_of_their_own(group: ProcessGroup) -> None:
    shared = group.share(pa.table({"x": [1, 2]}))
    first, second = (group.run(describe, [("a", shared), ("b", shared)], ignore) for _ in range(2))
    assert first == second
    assert [found[:3] for found in first] == [(0, 2, 3), (1, 2, 3)]
    assert [found[3] for found in first] == [("a", pa.table({"x": [1, 2]})), ("b", pa.table({"x": [1, 2]}))]
    assert [found[4] for found in first] == group.pids


def test_a_task_may_be_a_function_of_the_test(group: WorkerGroup) -> None:
    more = 10
    assert group.run(lambda context: context.rank + more, [(), ()], ignore) == [10, 11]


def report_rounds(context: WorkerContext, rounds: int) -> None:
    for done in range(rounds):
        context.progress("fit", done, rounds)
        context.report(done, {"train-rmse": float(done)})


def test_every_event_arrives_once_and_in_the_order_of_its_worker(group: WorkerGroup) -> None:
    events: list[Event] = []
    group.run(report_rounds, [(2500,), (2500,)], events.append)
    for rank in range(2):
        steps = [event.done for event in events if isinstance(event, Progress) and event.worker == rank]
        assert steps == list(range(2500))
    assert [event.round for event in events if isinstance(event, MetricsReported)] == list(range(2500))


def wait_for_the_wish(context: WorkerContext) -> str:
    context.progress("fit", 0, 1)
    while not context.should_stop():
        time.sleep(0.01)
    return "stopped"


def test_workers_learn_that_they_should_stop(group: WorkerGroup) -> None:
    assert group.run(wait_for_the_wish, [(), ()], lambda event: group.ask_to_stop()) == ["stopped", "stopped"]


def fail(context: WorkerContext, error: Exception) -> None:
    context.progress("fit", 0, 1)
    if context.rank == 1:
        raise error
    time.sleep(0.5)


def test_an_error_of_shardfit_arrives_as_it_was_raised(group: WorkerGroup) -> None:
    error = InvalidValueError("reading the label", "found nan in row 17", "Drop the row.")
    with pytest.raises(InvalidValueError, match=r"reading the label: found nan in row 17. Drop the row."):
        group.run(fail, [(error,), (error,)], ignore)


def test_any_other_error_arrives_with_its_worker_and_traceback(group: WorkerGroup) -> None:
    with pytest.raises(WorkerError, match=r"(?s)worker 1 on node here.*KeyError: 'x'.*in fail"):
        group.run(fail, [(KeyError("x"),)] * 2, ignore)


def end(context: WorkerContext, how: str) -> None:
    if context.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL) if how == "signal" else os._exit(3)
    time.sleep(60)


@pytest.mark.parametrize(("how", "reason"), [("signal", "killed by SIGKILL"), ("exit", "exit code 3")])
def test_a_process_that_ends_is_a_lost_worker(group: WorkerGroup, how: str, reason: str) -> None:
    with pytest.raises(WorkerLostError, match=rf"worker 1 on node here .*: it .*{reason}") as caught:
        group.run(end, [(how,)] * 2, ignore)
    assert (caught.value.rank, caught.value.node) == (1, "here")


def test_what_cannot_be_passed_is_refused(group: WorkerGroup) -> None:
    with pytest.raises(InvalidArgumentError, match="sending a task to worker 0"):
        group.run(describe, [(threading.Lock(),), ()], ignore)


def test_a_result_that_cannot_be_passed_is_refused(group: WorkerGroup) -> None:
    with pytest.raises(WorkerError, match="passing values to or from worker"):
        group.run(lambda context: threading.Lock(), [(), ()], ignore)


def test_what_the_observer_raises_ends_the_call(group: WorkerGroup) -> None:
    def refuse(event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        group.run(wait_for_the_wish, [(), ()], refuse)


DRIVER = """
from tests.shardfit import worker_processes
from tests.shardfit.test_worker_processes import layout_of, ignore, wait_for_the_wish

worker_processes.PRELOADED.clear()  # They would take seconds and are not used.
group = worker_processes.ProcessGroup(layout_of(2))
print(*group.pids, flush=True)
group.run(wait_for_the_wish, [(), ()], ignore)
"""


def test_workers_end_with_a_driver_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pids = [int(word) for word in driver.stdout.readline().split()]
        assert len(pids) == 2
        driver.kill()
    while any(process_exists(pid) for pid in pids):
        time.sleep(0.02)


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_training_on_processes_gives_the_model_of_this_process(trainer: str, tmp_path: Path) -> None:
    job: dict[str, Any] = {
        "trainer": trainer,
        "data": awkward_table(1_000),
        "columns": {"features": FEATURES, "label": ("delay",), "categorical": CATEGORICAL},
        "stage": str(tmp_path),
        "cpus_per_worker": 1,
    }
    name = {"xgboost": "n_estimators", "lightgbm": "num_iterations"}[trainer]
    alone = train(Job(**job, params={name: 3}, engine="inline"))
    with training_on(2) as engine:
        together = train(Job(**job, params={name: 3}, engine="ray", workers=2))
    assert len(engine.pids) == together.plan.layout.workers == 2
    assert together.trainer.save(together.model) == alone.trainer.save(alone.model)


def test_the_engine_is_found_only_while_it_is_there() -> None:
    with training_on(3, cpus=2):
        assert current_resources({}).engine == "ray"
        assert [node.cpus for node in current_resources({}, "ray").nodes] == [2.0] * 3
    assert current_resources({"RAY_TMPDIR": "/nowhere"}).engine == "inline"

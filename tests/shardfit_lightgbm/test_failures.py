"""Whatever fails in the middle of a round ends the run with its own error: nobody waits for those that are gone."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import lightgbm as lgb
import numpy as np
import psutil
import pytest

from shardfit import worker
from shardfit.collectives.contract import Collectives
from shardfit.collectives.sockets import Peers
from shardfit.connector import DataConnector
from shardfit.errors import ShardfitError, WorkerError, WorkerLostError
from shardfit.events import MetricsReported
from shardfit.matrix_reader import FeatureColumns
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.second_machine import TwoThreads
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_lightgbm.training import ROLES, table, trained

TABLE = table(800)
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread may be left, and LightGBM must train alone and together as if nothing had been."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("shardfit-lightgbm")]
    plain = lgb.train({"verbosity": -1}, lgb.Dataset(np.arange(200.0)[:, None], np.arange(200.0)), 3)
    assert plain.num_trees() == 3


def fitted(engine: str = "inline", workers: int = 1, **changes: Any) -> LightGBMEstimator:
    scaling = LightGBMScalingConfig(workers, 1, engine=engine)  # type: ignore[arg-type]
    estimator = LightGBMEstimator(6, scaling_config=scaling, checkpoint_every_seconds=None, **changes)
    estimator.fit(
        DataConnector.from_arrow(TABLE),
        ROLES.features,
        "delay",
        categorical_cols=ROLES.categorical,
        eval_set=TABLE.slice(0, 100),
    )
    return estimator


def objective_that_fails(where: Callable[[int], bool], after: int) -> Callable[..., Any]:
    calls: dict[int, int] = {}

    def objective(predictions: Any, data: lgb.Dataset) -> Any:
        rows = len(predictions)
        calls[rows] = calls.get(rows, 0) + 1
        if where(rows) and calls[rows] > after:
            raise ZeroDivisionError(f"trouble with {rows} rows")
        return predictions - data.get_label(), np.ones_like(predictions)

    return objective


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("machine", ["first", "second", "both"])
def test_an_objective_that_fails_on_either_machine_of_a_lone_worker(machine: str, after: int) -> None:
    where = {"first": lambda rows: rows == 1, "second": lambda rows: rows > 1, "both": lambda rows: True}[machine]
    with pytest.raises(WorkerError, match="ZeroDivisionError: trouble"):
        fitted(objective=objective_that_fails(where, after))


@pytest.mark.parametrize("workers", [2, 3])
def test_an_objective_that_fails_on_one_of_several_workers(workers: int) -> None:
    last = 800 // workers
    with pytest.raises((ZeroDivisionError, ShardfitError), match="trouble"):
        trained(TABLE, workers, params={"objective": objective_that_fails(lambda rows: rows <= last + 1, 2)})


@pytest.mark.parametrize("workers", [1, 3])
def test_an_objective_that_returns_the_wrong_shape(workers: int) -> None:
    def objective(predictions: Any, data: lgb.Dataset) -> Any:
        return np.ones(len(predictions) + 1), np.ones(len(predictions) + 1)

    with pytest.raises((ValueError, ShardfitError, lgb.basic.LightGBMError)):
        trained(TABLE, workers, params={"objective": objective})


@pytest.mark.parametrize("workers", [1, 3])
def test_a_metric_or_a_callback_that_fails(workers: int) -> None:
    def metric(predictions: Any, labels: Any, weights: Any) -> Any:
        raise ZeroDivisionError("trouble in the metric")

    def callback(environment: Any) -> None:
        if environment.iteration == 2:
            raise ZeroDivisionError("trouble in the callback")

    for params, place in (({"custom_metric": metric}, "metric"), ({"callbacks": [callback]}, "callback")):
        with pytest.raises((ZeroDivisionError, ShardfitError), match=f"trouble in the {place}"):
            trained(TABLE, workers, params=params, evals={"held": TABLE.slice(0, 90)})


@contextmanager
def failing_exchange(kind: type[Collectives], rank: int, number: int, error: BaseException) -> Iterator[None]:
    """Let one machine's exchange of the given number raise instead."""
    exchange, counts = kind.exchange, {}

    def failing(self: Any, call: Any, payloads: Sequence[Any]) -> Any:
        counts[id(self)] = counts.get(id(self), 0) + 1
        if self.rank == rank and counts[id(self)] == number:
            raise error
        return exchange(self, call, payloads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "exchange", failing)
        yield


@pytest.mark.parametrize("number", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_exchange_that_fails_between_the_two_machines_of_a_lone_worker(rank: int, number: int) -> None:
    with failing_exchange(TwoThreads, rank, number, OSError("the wire broke")), pytest.raises(OSError, match="wire"):
        trained(TABLE, 1, params={"num_leaves": 31})


@pytest.mark.parametrize("number", [1, 2, 5, 30])
def test_an_exchange_that_fails_on_one_of_three_workers(number: int) -> None:
    began = time.monotonic()
    with failing_exchange(Peers, 0, number, OSError("the wire broke")), pytest.raises(OSError, match="wire"):
        trained(TABLE, 3, params={"num_leaves": 31})
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("number", [1, 3, 12, 60])
def test_ctrl_c_in_the_middle_of_a_round_ends_the_run(number: int) -> None:
    exchange, count = TwoThreads.exchange, [0]

    def interrupted(self: Any, call: Any, payloads: Sequence[Any]) -> Any:
        if self.rank == 1:
            count[0] += 1
            if count[0] == number:
                _thread.interrupt_main()
        return exchange(self, call, payloads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TwoThreads, "exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(params={"num_leaves": 31})


def test_a_column_that_cannot_be_cast_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(columns: FeatureColumns, feature: int, start: int, stop: int) -> Any:
        raise OSError("no such column")

    monkeypatch.setattr(FeatureColumns, "column", fail)
    monkeypatch.setattr(worker, "batch_rows", lambda columns: 97)
    with pytest.raises(OSError, match="no such column") as caught:
        trained(table(1_500))
    # As long as the error lives, so do the generators in its frames.
    assert caught.value is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "shardfit-read-ahead"]


def test_several_workers_open_no_port_but_those_of_the_meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[Any] = []
    create = socket.create_server

    def counted(address: Any, **options: Any) -> socket.socket:
        server = create(address, **options)
        bound.append(server.getsockname()[1])
        return server

    def listening() -> set[int]:
        here = psutil.Process()
        # Others on this machine may open what they like.
        found = [at for process in (here, *here.children(recursive=True)) for at in process.net_connections("tcp")]
        return {at.laddr.port for at in found if at.status == psutil.CONN_LISTEN}

    during: set[int] = set()

    def watch(environment: Any) -> None:
        during.update(listening())

    before = listening()
    monkeypatch.setattr(socket, "create_server", counted)
    trained(TABLE, 3, params={"callbacks": [watch]})
    assert len(bound) == 4
    assert during - before <= set(bound)


def test_the_ports_that_lightgbm_would_have_opened_may_be_taken() -> None:
    with ExitStack() as stack:
        for port in range(12400, 12404):
            # Whoever has it already will do as well.
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        other = trained(TABLE, 3)
    assert other.model.text == trained(TABLE, 1).model.text


def test_a_killed_worker_ends_the_run_within_seconds(four_processes: ProcessEngine) -> None:
    killed: list[float] = []

    def kill(event: Any) -> None:
        if isinstance(event, MetricsReported) and event.round == 1 and not killed:
            killed.append(time.monotonic())
            os.kill(four_processes.pids[1], signal.SIGKILL)

    def slowly(environment: Any) -> None:
        time.sleep(0.3)

    with pytest.raises(WorkerLostError, match="worker 1"):
        fitted("ray", 2, observers=[kill], callbacks=[slowly], max_attempts=1)
    assert time.monotonic() - killed[0] < 30


def test_an_objective_that_fails_on_one_worker_process_is_named(four_processes: ProcessEngine) -> None:
    def objective(predictions: Any, data: lgb.Dataset) -> Any:
        # The shard of the first worker has the first row.
        if data.get_label()[0] == np.float32(TABLE_FIRST):
            raise ZeroDivisionError("the objective's own trouble")
        return predictions - data.get_label(), np.ones_like(predictions)

    TABLE_FIRST = TABLE["delay"][0].as_py()
    with pytest.raises(WorkerError, match="ZeroDivisionError: the objective's own trouble"):
        fitted("ray", 2, objective=objective)

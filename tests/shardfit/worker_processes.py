"""Workers as processes of this machine, without Ray: real processes, in a fraction of the time that a cluster takes.

They run what a Ray actor runs, a `TaskRunner`, and the driver waits for them as it does on Ray, with a `Watch`; only
what carries the messages differs. `with training_on(2): train(job)` trains on two of them wherever a job says `ray`.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from shardfit import engines, prediction
from shardfit.cancellation import Cancellation
from shardfit.engine import Engine, Result, Shared, WorkerGroup
from shardfit.engines import discovery
from shardfit.engines.failures import Failure
from shardfit.engines.machine import LOCAL_ADDRESS
from shardfit.engines.task_runner import Outcome, TaskRunner
from shardfit.engines.vitals import Vitals, WorkerPlace, look_at, own_place
from shardfit.engines.watch import Gone, Watch
from shardfit.errors import InvalidArgumentError, WorkerError
from shardfit.events import Event, EventSink, MetricsReported, WorkerLost
from shardfit.scaling import ClusterResources, Node, WorkerLayout, WorkerSlot

# Imported once, by the process that workers are forked from; those that are not installed are skipped.
PRELOADED = [
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pytest",
    "shardfit.collectives.meeting",
    "shardfit.testing.tables",
    "shardfit.train",
    "shardfit_lightgbm.trainer",
    "shardfit_pytorch.loop_worker",
    "shardfit_xgboost.trainer",
    "tests.shardfit.worker_processes",  # Found where tests run from the top of the repository, as they mostly do.
    "torch",
    "torch._dynamo",  # Every optimizer imports it.
]

# Names the memory control group that the last worker is to join.
MEMORY_GROUP = "SHARDFIT_TESTS_MEMORY_GROUP"

_POLL_SECONDS = 1.0
_REASON_SECONDS = 5.0
_PLACE = -1
_processes = multiprocessing.get_context("forkserver")
_starting = threading.Lock()


@dataclass(frozen=True)
class _Request:
    rank: int
    number: int


@dataclass(frozen=True)
class _Packed:
    """A shared value, pickled once."""

    content: bytes


@dataclass(frozen=True)
class _Refused:
    """What a worker answers when a value could not be passed to or from it."""

    why: str


class ProcessEngine(Engine):
    """Starts one process a slot, wherever the layout says: all nodes are this machine.

    Args:
        nodes: What the cluster claims to have; a test that takes one away has lost it.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = list(nodes)
        self.groups: list[ProcessGroup] = []

    def resources(self) -> ClusterResources:
        """Return the nodes that are left."""
        return ClusterResources(tuple(self.nodes), "ray")

    def start(self, layout: WorkerLayout, attempt: int = 1, cancellation: Cancellation | None = None) -> ProcessGroup:
        """Start the processes, which this remembers in `groups`."""
        self.groups.append(ProcessGroup(layout, attempt))
        return self.groups[-1]

    @property
    def pids(self) -> list[int]:
        """The process of every worker that was started, in order."""
        return [pid for group in self.groups for pid in group.pids]


class ProcessGroup(WorkerGroup):
    """Processes, one a slot.

    Args:
        layout: Where they claim to run.
        attempt: 1 for the first try.
    """

    def __init__(self, layout: WorkerLayout, attempt: int = 1) -> None:
        self.layout = layout
        self._numbers = itertools.count()
        self._answers: dict[_Request, Any] = {}
        self._lost: dict[int, Gone] = {}
        self._sending = threading.Lock()
        self._cancellation = Cancellation()
        self._lines: list[Any] = []
        self._workers: list[Any] = []
        start_server()
        for slot in layout.slots:
            line, far_end = _processes.Pipe()
            worker = _processes.Process(
                target=_serve, args=(far_end, slot, layout.workers, attempt, dict(os.environ)), daemon=True
            )
            worker.start()
            far_end.close()
            self._lines.append(line)
            self._workers.append(worker)
        self.pids = [worker.pid for worker in self._workers]

    @property
    def address(self) -> str:
        """This machine, as seen by itself."""
        return LOCAL_ADDRESS

    def share(self, value: object) -> Shared:
        """Pickle `value` once."""
        return Shared(_Packed(cloudpickle.dumps(value)))

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], on_event: EventSink
    ) -> list[Result]:
        """Run `task` on every worker; see `WorkerGroup.run`. Stops all of them before it raises."""
        try:
            outcomes = [
                self._ask(rank, "run", task, *(value.handle if isinstance(value, Shared) else value for value in mine))
                for rank, (mine, _) in enumerate(zip(arguments, self._lines, strict=True))
            ]
            return Watch(self, outcomes, on_event, self._cancellation.check).results()
        except BaseException:
            self.stop()
            raise

    def ask_to_stop(self) -> None:
        """Send every worker the wish; does not wait."""
        for rank in range(len(self._lines)):
            self._ask(rank, "ask_to_stop")

    def cancel(self) -> None:
        """Have `run` raise at its next look around; see `WorkerGroup.cancel`."""
        self._cancellation.cancel()

    def stop(self) -> None:
        """Kill every worker and wait until it is gone."""
        workers, self._workers = self._workers, []
        lines, self._lines = self._lines, []
        for worker in workers:
            worker.kill()
        for worker, line in zip(workers, lines, strict=True):
            worker.join()
            worker.close()
            line.close()

    # What a `Watch` asks for.

    def poll(self, rank: int) -> _Request:
        """Ask a worker for its next events."""
        return self._ask(rank, "next_events", _POLL_SECONDS)

    def ping(self, rank: int) -> _Request:
        """Ask a worker whether it is there."""
        return self._ask(rank, "ping")

    def ready(self, requests: Iterable[_Request], timeout_s: float) -> Sequence[_Request]:
        """Return the requests that are answered; waits up to `timeout_s` seconds for a first one."""
        waiting = list(requests)
        if not (found := self._ready(waiting)):
            listening = {line: rank for rank, line in enumerate(self._lines) if rank not in self._lost}
            for line in multiprocessing.connection.wait(list(listening), timeout_s):
                self._receive(listening[line], line)
            found = self._ready(waiting)
        return found

    def answer(self, rank: int, request: _Request) -> Any:
        """Return the answer to a request that is ready, or a `Failure`, or `Gone` where there is no worker any more."""
        if request not in self._answers:
            return self._lost[rank]
        answer = self._answers.pop(request)
        if isinstance(answer, _Refused):
            where = f"passing values to or from {self.describe(rank)}"
            return Failure(rank, WorkerError(where, answer.why, "They must be possible to pickle and to import there."))
        return answer

    def examine(self, rank: int, said: str) -> Vitals:
        """Return what this machine knows of a worker's process."""
        code = self._workers[rank].exitcode
        if code is None:
            return look_at(WorkerPlace(self.pids[rank], LOCAL_ADDRESS))
        if code >= 0:
            return Vitals(exit_code=code)
        place = self._answers.get(_Request(rank, _PLACE))
        # Elsewhere the counters are those of everything that runs beside the tests.
        return Vitals(signal=signal.Signals(-code).name, oom_kill=look_at(place).oom_kill if place else "")

    def place(self, rank: int) -> tuple[str, int]:
        """Return the name of a worker's node and the number of its process."""
        return self.layout.slots[rank].node, self.pids[rank]

    def describe(self, rank: int) -> str:
        """Return a worker's rank, node and process for people."""
        return f"worker {rank} on node {self.layout.slots[rank].node} (address {LOCAL_ADDRESS}, pid {self.pids[rank]})"

    def _ask(self, rank: int, name: str, *arguments: Any) -> _Request:
        request = _Request(rank, next(self._numbers))
        try:
            message = cloudpickle.dumps(arguments)
        except Exception as error:
            raise InvalidArgumentError(
                f"sending a task to worker {rank}", str(error), "What a worker is given must be possible to pickle."
            ) from error
        # One that is gone is found out by what it no longer says.
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._lines[rank].send((request.number, name, message))
        return request

    def _ready(self, requests: Iterable[_Request]) -> list[_Request]:
        return [request for request in requests if request in self._answers or request.rank in self._lost]

    def _receive(self, rank: int, line: Any) -> None:
        try:
            while line.poll():
                number, content = line.recv()
                try:
                    self._answers[_Request(rank, number)] = pickle.loads(content)
                except Exception as error:  # noqa: BLE001 - a value may refuse in any way
                    self._answers[_Request(rank, number)] = _Refused(f"{type(error).__name__}: {error}")
        except (EOFError, ConnectionResetError):
            self._workers[rank].join(_REASON_SECONDS)
            self._lost[rank] = Gone("its connection ended")


def start_server() -> None:
    """Start the process that workers are forked from, unless it is there; its socket lies among temporary files."""
    with _starting, pytest.MonkeyPatch.context() as patch:
        # Read when libraries are loaded; those that are given a number of threads go by that.
        patch.setenv("OMP_NUM_THREADS", "1")
        _processes.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()


def _serve(line: Any, slot: WorkerSlot, world_size: int, attempt: int, environ: Mapping[str, str]) -> None:
    # Ctrl-C reaches every process of a terminal; what becomes of workers is for the driver to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Only the driver goes by it, at its end; here it would forbid a loop to start processes, as it may on Ray.
    multiprocessing.current_process().daemon = False
    # The default of a process that was not made in this way, for processes of its own.
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update({**environ, "OMP_NUM_THREADS": str(slot.cpus)})
    if (group := environ.get(MEMORY_GROUP)) and slot.rank == world_size - 1:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        line.send((_PLACE, pickle.dumps(own_place(LOCAL_ADDRESS))))
    runner = TaskRunner(slot, world_size, attempt)
    sending = threading.Lock()
    while True:
        try:
            message = line.recv()
        except (EOFError, ConnectionResetError):
            os._exit(1)  # The driver is gone, whatever the task is doing.
        threading.Thread(target=_answer, args=(line, sending, runner, *message), daemon=True).start()


def _answer(line: Any, sending: threading.Lock, runner: TaskRunner, number: int, name: str, message: bytes) -> None:
    try:
        content = cloudpickle.dumps(_call(runner, name, message))
    except Exception as error:  # noqa: BLE001 - a value may refuse in any way
        content = pickle.dumps(_Refused(f"{type(error).__name__}: {error}"))
    with sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.send((number, content))


def _call(runner: TaskRunner, name: str, message: bytes) -> Any:
    arguments = pickle.loads(message)
    if name == "run":
        task, *values = arguments
        given = [pickle.loads(value.content) if isinstance(value, _Packed) else value for value in values]
        outcome: Outcome = runner.run(task, tuple(given))
        return outcome
    return None if name == "ping" else getattr(runner, name)(*arguments)


@contextlib.contextmanager
def training_on(nodes: int, cpus: int = 1) -> Iterator[ProcessEngine]:
    """Run on processes, while the context lasts, what asks for the engine `ray` or for the cluster that is there.

    Args:
        nodes: Nodes of the cluster, all on this machine. A small table gets one worker, unless the job says how many.
        cpus: CPUs that each claims to have.
    """
    engine = ProcessEngine(Node(f"node-{number}", LOCAL_ADDRESS, float(cpus)) for number in range(nodes))
    make_engine = discovery.make_engine

    def make(name: Any, environ: Mapping[str, str] | None = None) -> Engine:
        return engine if name == "ray" else make_engine(name, environ)

    with pytest.MonkeyPatch.context() as patch:
        # `shardfit.train` is the function as soon as the package is imported.
        for module in (discovery, engines, prediction, import_module("shardfit.train")):
            patch.setattr(module, "make_engine", make)
        for module in (discovery, engines):
            patch.setattr(module, "find_cluster", lambda environ: LOCAL_ADDRESS)
        try:
            yield engine
        finally:
            for group in engine.groups:
                group.stop()


class LastWorkerKiller:
    """Kills the last worker after a round of the first attempt, and with it its node if fewer are to be left.

    Args:
        engine: Whose processes they are.
        left: Nodes that later attempts have.
        killed: A file that is there once it has happened.
        after: The round.
    """

    def __init__(self, engine: ProcessEngine, left: int, killed: Path, after: int) -> None:
        self.engine, self.left, self.killed, self.after = engine, left, killed, after
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, MetricsReported) and (event.attempt, event.round) == (1, self.after):
            os.kill(self.engine.pids[-1], signal.SIGKILL)
            self.killed.touch()
        if isinstance(event, WorkerLost):
            del self.engine.nodes[self.left :]

"""The engine on a Ray cluster. The only file that imports Ray.

One actor is one worker, pinned to the node that the layout says. The driver asks each worker for its events in a long
poll, and waits for the polls and the results together, so it learns of everything, and can be interrupted, at once.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardfit.engine import Engine, Result, Shared, WorkerGroup
from shardfit.engines.discovery import answers, find_cluster, has_token
from shardfit.engines.failures import Failure, reason_of_death
from shardfit.engines.machine import LOCAL_NODE, process_exists, this_machine
from shardfit.engines.placement import Member, in_order, place
from shardfit.engines.task_runner import EventBatch, Outcome, TaskRunner
from shardfit.engines.watch import Watch
from shardfit.errors import (
    DataError,
    InfeasibleRequestError,
    InvalidArgumentError,
    UnreadableSourceError,
    WorkerError,
    WorkerLostError,
)
from shardfit.events import EventSink
from shardfit.scaling import ClusterResources, WorkerLayout, WorkerSlot

_POLL_SECONDS = 1.0
_STOP_SECONDS = 5.0
_REASON_SECONDS = 1.5
# The task, a poll for events, and two short calls beside them.
_CALLS_AT_ONCE = 4

# Address of the local cluster that this process started, which ends with it.
_started_address: str | None = None
_connecting = threading.Lock()  # Ray cannot be initialized by two threads at once.


def started_here() -> bool:
    """Return whether Ray runs only because this process started it."""
    return _started_address is not None and ray.is_initialized() and _gcs_address() == _started_address


def shutdown() -> None:
    """Stop the local Ray that this process started, if it did. Also happens when the process ends."""
    global _started_address
    if started_here():
        ray.shutdown()
    _started_address = None


class RayEngine(Engine):
    """Runs workers on the Ray cluster that is there, or else on a local one that lives as long as this process.

    Args:
        environ: Where `RAY_ADDRESS` and the like are looked up.
        start_deadline_s: Seconds to wait for workers to start while something else occupies their CPUs or GPUs.
    """

    def __init__(self, environ: Mapping[str, str], start_deadline_s: float = 60.0) -> None:
        self._environ = environ
        self._start_deadline_s = start_deadline_s

    def connect(self) -> None:
        """Connect to the cluster, or start a local one; nothing if this process is connected.

        Raises:
            InfeasibleRequestError: The cluster does not answer, or wants another authentication token.
        """
        with _connecting:
            if not ray.is_initialized():
                self._connect()

    def _connect(self) -> None:
        global _started_address
        address = find_cluster(self._environ)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            machine = this_machine(self._environ)
            ray.init("local", num_cpus=int(machine.cpus), num_gpus=int(machine.gpus), include_dashboard=False, **quiet)
            _started_address = _gcs_address()
            return
        if "RAY_AUTH_MODE" not in self._environ and has_token(self._environ):
            _authenticate()
        try:
            ray.init(address, **quiet)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise InfeasibleRequestError(
                f"joining the Ray cluster at {address!r}",
                f"{type(error).__name__}: {error}",
                "A cluster with authentication needs its token in ~/.ray/auth_token or RAY_AUTH_TOKEN here too; "
                "and Python and Ray must be of the same version everywhere.",
            ) from error

    def resources(self) -> ClusterResources:
        """Return the nodes that are alive, by address."""
        self.connect()
        return ClusterResources(tuple(member.node for member in _members()), engine="ray")

    def start(self, layout: WorkerLayout, attempt: int = 1) -> RayGroup:
        """Start one worker a slot and wait until all are there; see `Engine.start`.

        Raises:
            InfeasibleRequestError: The cluster can never place them; or something else kept their CPUs occupied.
            WorkerLostError: A node went away meanwhile.
        """
        self.connect()
        nodes = place(layout, _members(), str(ray.get_runtime_context().get_node_id()))
        group = RayGroup(layout)
        try:
            group.start(nodes, attempt, self._start_deadline_s)
        except BaseException:
            group.stop()
            raise
        return group


@dataclass(frozen=True, slots=True)
class _Identity:
    pid: int
    address: str


class _Worker:
    """The actor: a `TaskRunner` that the driver can call."""

    def __init__(self, slot: WorkerSlot, world_size: int, attempt: int, python_path: Sequence[str]) -> None:
        # Ray leaves alone what it inherits from the shell that started the node.
        os.environ["OMP_NUM_THREADS"] = str(slot.cpus)
        # A user's own modules, where the nodes share a file system; after everything that is installed.
        sys.path.extend(path for path in python_path if path not in sys.path)
        self._runner = TaskRunner(slot, world_size, attempt)

    def identify(self) -> _Identity:
        return _Identity(os.getpid(), ray.util.get_node_ip_address())

    def next_events(self) -> EventBatch:
        return self._runner.next_events(_POLL_SECONDS)

    def ask_to_stop(self) -> None:
        self._runner.ask_to_stop()

    def run(self, task: Callable[..., Any], *arguments: Any) -> Outcome:
        return self._runner.run(task, arguments)


class RayGroup(WorkerGroup):
    """Actors, one a slot; made by `RayEngine.start`.

    Args:
        layout: Where they run.
    """

    def __init__(self, layout: WorkerLayout) -> None:
        self.layout = layout
        self._actors: list[Any] = []
        self._identities: list[_Identity] = []

    @property
    def address(self) -> str:
        """Address of the driver's machine within the cluster."""
        return str(ray.util.get_node_ip_address())

    def start(self, nodes: Sequence[str], attempt: int, deadline_s: float) -> None:
        """Start the actors and wait for them. Called once, by the engine.

        Args:
            nodes: Ray's id of each slot's node.
            attempt: 1 for the first try.
            deadline_s: Seconds to wait for CPUs and GPUs that are occupied.
        """
        actor_class = ray.remote(_Worker)
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - entries may be empty: the current folder
        for slot, node in zip(self.layout.slots, nodes, strict=True):
            options = actor_class.options(
                num_cpus=slot.cpus,
                num_gpus=slot.gpus,
                max_concurrency=_CALLS_AT_ONCE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            self._actors.append(options.remote(slot, self.layout.workers, attempt, path))
        replies = [actor.identify.remote() for actor in self._actors]
        _, waiting = ray.wait(replies, num_returns=len(replies), timeout=deadline_s, fetch_local=False)
        if waiting:
            raise self._occupied(len(waiting), deadline_s)
        for rank, reply in enumerate(replies):
            self._identities.append(self._identity(rank, reply))

    def share(self, value: object) -> Shared:
        """Put `value` into the object store once. Arrow tables reach every worker of a node without a copy."""
        return Shared(ray.put(value))

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], on_event: EventSink
    ) -> list[Result]:
        """Run `task` on every worker; see `WorkerGroup.run`. Stops all of them before it raises."""
        try:
            outcomes = [
                self._submit(rank, task, mine)
                for rank, (mine, _) in enumerate(zip(arguments, self._actors, strict=True))
            ]
            return Watch(self, outcomes, on_event).results()
        except BaseException:
            self.stop()
            raise

    def ask_to_stop(self) -> None:
        """Send every worker the wish; does not wait."""
        for actor in self._actors:
            actor.ask_to_stop.remote()

    def stop(self) -> None:
        """Kill every worker and wait, a few seconds at most, until the processes are gone."""
        actors, self._actors = self._actors, []
        if not actors or not ray.is_initialized():
            return
        deadline = time.monotonic() + _STOP_SECONDS
        for actor in actors:
            ray.kill(actor, no_restart=True)
        ray.wait([actor.identify.remote() for actor in actors], num_returns=len(actors), timeout=_STOP_SECONDS)
        here = [identity.pid for identity in self._identities if identity.address == self.address]
        while any(process_exists(pid) for pid in here) and time.monotonic() < deadline:
            time.sleep(0.02)

    def poll(self, rank: int) -> Any:
        """Ask a worker for its next events; returns Ray's reference to the answer."""
        return self._actors[rank].next_events.remote()

    def ping(self, rank: int) -> Any:
        """Ask a worker whether it is there; returns Ray's reference to the answer."""
        return self._actors[rank].identify.remote()

    def ready(self, requests: Iterable[Any], timeout_s: float) -> Sequence[Any]:
        """Return the references that are answered; waits up to `timeout_s` seconds for a first one."""
        waiting = list(requests)
        if not ray.wait(waiting, num_returns=1, timeout=timeout_s)[0]:
            return []
        answered: list[Any] = ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        return answered

    def answer(self, rank: int, request: Any) -> Any:
        """Return the answer to a reference that is ready, or a `Failure` that says what became of the worker."""
        try:
            return ray.get(request)
        except RayTaskError as error:
            where = f"passing values to or from {self.describe(rank)}"
            return Failure(rank, WorkerError(where, str(error), "They must be possible to pickle and to import there."))
        except RayError as error:
            lost = WorkerLostError(
                f"running {self.describe(rank)}", f"it is gone: {reason_of_death(str(self._latest(rank, error)))}"
            )
            return Failure(rank, lost.at(rank, self.layout.slots[rank].node), seen_lost=True)

    def _latest(self, rank: int, error: RayError) -> RayError:
        # Ray first says "unavailable" and knows a little later what happened.
        try:
            ray.get(self.ping(rank), timeout=_REASON_SECONDS)
        except GetTimeoutError:
            return error
        except RayActorError as later:
            return later
        return error

    def describe(self, rank: int) -> str:
        """Return a worker's rank, node and process for people."""
        who = f"worker {rank} on node {self.layout.slots[rank].node}"
        if rank < len(self._identities):
            return f"{who} (address {self._identities[rank].address}, pid {self._identities[rank].pid})"
        return who

    def _submit(self, rank: int, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        values = [argument.handle if isinstance(argument, Shared) else argument for argument in arguments]
        try:
            return self._actors[rank].run.remote(task, *values)
        except TypeError as error:
            raise InvalidArgumentError(
                f"sending a task to worker {rank}", str(error), "What a worker is given must be possible to pickle."
            ) from error

    def _identity(self, rank: int, reply: Any) -> _Identity:
        try:
            identity: _Identity = ray.get(reply)
        except ActorUnschedulableError as error:
            raise WorkerLostError(f"starting {self.describe(rank)}", f"the node is gone: {error}") from error
        except RayActorError as error:
            raise WorkerLostError(
                f"starting {self.describe(rank)}", str(error), "shardfit must be installed on every node."
            ) from error
        return identity

    def _occupied(self, waiting: int, deadline_s: float) -> InfeasibleRequestError:
        free, total = ray.available_resources(), ray.cluster_resources()
        kinds = " and ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
        return InfeasibleRequestError(
            f"starting {self.layout.workers} workers",
            f"{waiting} of them did not start within {deadline_s:g} s; {kinds} are free beside those that did",
            "Something else occupies the cluster: end it, or ask for fewer workers or fewer CPUs each.",
        )


def _gcs_address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def _authenticate() -> None:
    # Ray does this for clusters that it starts, not for those that it joins; one without authentication ignores it.
    os.environ["RAY_AUTH_MODE"] = "token"
    # The variable is read when Ray is imported, which has been. Versions without this name have no authentication.
    if config := getattr(ray._raylet, "Config", None):
        config.initialize("")


def _members() -> list[Member]:
    listed = [node for node in ray.nodes() if node["Alive"]]
    # The cluster takes many seconds to strike off a host that went away, and a retry must not count on it meanwhile.
    with ThreadPoolExecutor(max_workers=32) as pool:
        there = list(pool.map(answers, (f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in listed)))
    name = LOCAL_NODE if started_here() else ""
    return in_order(
        Member(node["NodeID"], node["NodeManagerAddress"], node["Resources"], name)
        for node in itertools.compress(listed, there)
    )


# What the source and the exporter of Ray datasets need of Ray.


def dataset_blocks(dataset: Any) -> tuple[list[tuple[Any, int, int, int]], pa.Schema | None]:
    """Return the blocks of a materialised dataset, in order, and its Arrow schema, or None where blocks are pandas'.

    A block is Ray's reference to it, the number of its first row that counts, how many rows, and its bytes.

    Raises:
        DataError: The dataset is lazy: its rows may differ each time that they are computed.
    """
    from ray.data.dataset import MaterializedDataset  # Slow to import, and only needed for datasets.

    if not isinstance(dataset, MaterializedDataset):
        raise DataError(
            "reading a Ray dataset", f"found a lazy one: {type(dataset).__name__}", "Pass dataset.materialize()."
        )
    blocks = [block for bundle in dataset.iter_internal_ref_bundles() for block in _blocks_of(bundle)]
    schema = getattr(dataset.schema(), "base_schema", None)
    return blocks, schema if isinstance(schema, pa.Schema) else None


def _blocks_of(bundle: Any) -> Iterator[tuple[Any, int, int, int]]:
    parts = getattr(bundle, "slices", None) or [None] * len(bundle.blocks)
    for entry, part in zip(bundle.blocks, parts, strict=True):
        # Older versions of Ray have pairs here.
        reference, metadata = (entry.ref, entry.metadata) if hasattr(entry, "metadata") else entry
        start, stop = (0, metadata.num_rows) if part is None else (part.start_offset, part.end_offset)
        yield reference, start, stop - start, metadata.size_bytes


def submit_tasks(task: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return Ray's references to `task(*item)` for each item; tasks of the cluster, while its CPUs are free."""
    remote = ray.remote(task)
    return [remote.remote(*item) for item in items]


def put(value: object) -> Any:
    """Put a value into the object store once and return Ray's reference to it."""
    return ray.put(value)


def fetch(reference: Any) -> Any:
    """Return what a reference, or each of a list of them, leads to. Called in any process of the cluster.

    Raises:
        UnreadableSourceError: The object store has lost it, or the task that should make it failed.
    """
    try:
        return ray.get(reference)
    except RayError as error:
        raise UnreadableSourceError(
            "fetching rows from Ray's object store", str(error), "Materialise the dataset again, or write it to files."
        ) from error


def dataset_of_tables(tables: Sequence[Any]) -> Any:
    """Return the Ray dataset of the Arrow tables behind some references, in order."""
    from ray.data import from_arrow_refs

    return from_arrow_refs(list(tables))

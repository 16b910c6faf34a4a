"""The engine on a Ray cluster. The only file that imports Ray.

One actor is one worker, pinned to the node that the layout says. The driver asks each worker for its events in a long
poll, and waits for the polls and the results together, so it learns of everything, and can be interrupted, at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardfit.cancellation import Cancellation
from shardfit.engine import Engine, Result, Shared, WorkerGroup
from shardfit.engines.discovery import find_cluster, has_token, refused
from shardfit.engines.failures import Failure, reason_of_death
from shardfit.engines.local_guard import watch_local_ray
from shardfit.engines.machine import LOCAL_NODE, process_exists, this_machine
from shardfit.engines.placement import Member, in_order, member_of, occupied, place
from shardfit.engines.ray_blocks import Block, blocks_of
from shardfit.engines.ray_worker import CALLS_AT_ONCE, RayWorker
from shardfit.engines.vitals import Vitals, WorkerPlace, end_process, is_there, look_at
from shardfit.engines.watch import Gone, Watch
from shardfit.errors import InvalidArgumentError, LossCause, UnreadableSourceError, WorkerError, WorkerLostError
from shardfit.events import EventSink
from shardfit.scaling import ClusterResources, WorkerLayout

_STOP_SECONDS, _STEP_SECONDS, _REASON_SECONDS = 5.0, 0.5, 1.5
# For another process of the node to look at a silent worker, or a gone one; and until one that did not is asked again.
_LOOK_SECONDS, _LOOK_AFTER_SECONDS, _DOUBT_SECONDS = 7.0, 1.5, 10.0

_started_address: str | None = None  # Of the local cluster that this process started, which ends with it.
_connecting = threading.Lock()  # Ray cannot be initialized by two threads at once.


def started_here() -> bool:
    """Return whether Ray runs only because this process started it."""
    return bool(ray.is_initialized() and ray.get_runtime_context().gcs_address == _started_address)


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
        self._suspects: dict[str, float] = {}

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
            here = this_machine(self._environ)
            share = {"num_cpus": int(here.cpus), "num_gpus": int(here.gpus)}
            local = ray.init("local", include_dashboard=False, **share, **quiet)
            atexit.register(shutdown)  # Ray's own waits half a second more, for logs that go nowhere here.
            _started_address = ray.get_runtime_context().gcs_address
            watch_local_ray(Path(local.address_info["session_dir"]))
            return
        if "RAY_AUTH_MODE" not in self._environ and has_token(self._environ):
            _authenticate()
        try:
            ray.init(address, **quiet)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise refused(address, error) from error

    def resources(self) -> ClusterResources:
        """Return the nodes that are alive, by address."""
        self.connect()
        there = {member.identity: member.node for member in _members()}
        # A host that is stopped accepts connections and does nothing else, and the wait that showed it is not repeated.
        for node in self._suspects.keys() & there.keys():
            asked_again = time.monotonic() - self._suspects[node] >= _DOUBT_SECONDS and _works(node)
            (self._suspects if asked_again else there).pop(node)
        return ClusterResources(tuple(there.values()), engine="ray")

    def start(self, layout: WorkerLayout, attempt: int = 1, cancellation: Cancellation | None = None) -> RayGroup:
        """Start one worker a slot and wait until all are there; see `Engine.start`.

        Raises:
            InfeasibleRequestError: The cluster can never place them; or something else kept their CPUs occupied.
            WorkerLostError: A node went away meanwhile.
        """
        self.connect()
        here = str(ray.get_runtime_context().get_node_id())
        group = RayGroup(layout, place(layout, _members(), here), self._suspects)
        try:
            group.start(attempt, self._start_deadline_s, cancellation or Cancellation())
        except BaseException:
            group.stop()
            raise
        return group


class RayGroup(WorkerGroup):
    """Actors, one a slot; made by `RayEngine.start`.

    Args:
        layout: Where they run.
        members: Each slot's node.
        suspects: Ids of nodes that do not answer, and since when; added to.
    """

    def __init__(self, layout: WorkerLayout, members: Sequence[Member], suspects: dict[str, float]) -> None:
        self.layout = layout
        self._members = tuple(members)
        self._suspects = suspects
        self._hanging: set[int] = set()
        self._cancellation = Cancellation()
        self._actors: list[Any] = []
        self._places: list[WorkerPlace] = []
        self._reasons: dict[int, str] = {}

    @property
    def address(self) -> str:
        """Address of the driver's machine within the cluster."""
        return str(ray.util.get_node_ip_address())

    def start(self, attempt: int, deadline_s: float, cancellation: Cancellation) -> None:
        """Start the actors and wait for them. Called once, by the engine.

        Args:
            attempt: 1 for the first try.
            deadline_s: Seconds to wait for CPUs and GPUs that are occupied.
            cancellation: Ends the wait.
        """
        actor_class = ray.remote(RayWorker)
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - entries may be empty: the current folder
        for slot, member in zip(self.layout.slots, self._members, strict=True):
            options = actor_class.options(
                num_cpus=slot.cpus,
                num_gpus=slot.gpus,
                max_concurrency=CALLS_AT_ONCE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(member.identity, soft=False),
            )
            self._actors.append(options.remote(slot, self.layout.workers, attempt, path, member.address))
        replies = [actor.identify.remote() for actor in self._actors]
        deadline, waiting = time.monotonic() + deadline_s, replies
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            cancellation.check()
            step_s = min(left_s, _STEP_SECONDS)
            _, waiting = ray.wait(replies, num_returns=len(replies), timeout=step_s, fetch_local=False)
        if waiting:
            for rank, reply in enumerate(replies):
                if reply in waiting and not self._members[rank].answers:
                    raise self._not_started(rank, "its node does not answer", cause="node gone")
            free, total = ray.available_resources(), ray.cluster_resources()
            raise occupied(self.layout.workers, len(waiting), deadline_s, free, total)
        for rank, reply in enumerate(replies):
            self._places.append(self._place(rank, reply))

    def share(self, value: object) -> Shared:
        """Put `value` into the object store once. Arrow tables reach every worker of a node without a copy."""
        return Shared(ray.put(value))

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], on_event: EventSink
    ) -> list[Result]:
        """Run `task` on every worker; see `WorkerGroup.run`. Stops all of them before it raises."""
        try:
            each = zip(range(len(self._actors)), arguments, strict=True)
            outcomes = [self._submit(rank, task, mine) for rank, mine in each]
            return Watch(self, outcomes, on_event, self._cancellation.check).results()
        except BaseException:
            self.stop()
            raise

    def ask_to_stop(self) -> None:
        """Send every worker the wish; does not wait."""
        for actor in self._actors:
            actor.ask_to_stop.remote()

    def cancel(self) -> None:
        """Have `run` raise at its next look around; see `WorkerGroup.cancel`."""
        self._cancellation.cancel()

    def stop(self) -> None:
        """Kill every worker and wait, a few seconds at most, until the processes are gone."""
        actors, self._actors = self._actors, []
        if not actors or not ray.is_initialized():
            return
        deadline = time.monotonic() + _STOP_SECONDS
        for actor in actors:
            ray.kill(actor, no_restart=True)
        # A stopped process hears nothing of it.
        for rank in self._hanging:
            self._beside(rank, end_process)
        reached = zip(actors, self._members, strict=False)
        if asked := [actor.identify.remote() for actor, node in reached if node.identity not in self._suspects]:
            ray.wait(asked, num_returns=len(asked), timeout=_STOP_SECONDS)
        here = [place.pid for place in self._places if place.address == self.address]
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
        return list(ray.wait(waiting, num_returns=len(waiting), timeout=0)[0])

    def answer(self, rank: int, request: Any) -> Any:
        """Return the answer to a reference that is ready, or a `Failure` that says what became of the worker."""
        try:
            return ray.get(request)
        except RayTaskError as error:
            where = f"passing values to or from {self.describe(rank)}"
            return Failure(rank, WorkerError(where, str(error), "They must be possible to pickle and to import there."))
        except RayError as error:
            if rank not in self._reasons:
                self._reasons[rank] = reason_of_death(str(self._latest(rank, error)))
            return Gone(self._reasons[rank])

    def examine(self, rank: int, said: str) -> Vitals:
        """Return what other processes of a worker's node see of it, and remember what does not answer."""
        if "memory running low" in said or "OutOfMemory" in said:
            return Vitals(said=said, oom_kill="engine")
        if self._members[rank].answers:
            try:
                seen = self._beside(rank, look_at, _LOOK_AFTER_SECONDS if said else _LOOK_SECONDS)
                vitals: Vitals = replace(seen, said=said)
                self._hanging |= set() if vitals.gone else {rank}
                return vitals
            except RayError:
                if said:
                    return Vitals(said=said)
        self._suspects[self._members[rank].identity] = time.monotonic()
        return Vitals(reached=False, said=said)

    def place(self, rank: int) -> tuple[str, int]:
        """Return the name of a worker's node and the number of its process."""
        return self.layout.slots[rank].node, self._places[rank].pid

    def _beside(self, rank: int, task: Callable[[WorkerPlace], Any], timeout_s: float = 0.0) -> Any:
        """Run a task in another process of a worker's node; wait for its answer if `timeout_s` is given."""
        place, member = self._places[rank], self._members[rank]
        if place.address == self.address:
            return task(place)
        return _run_on(member.identity, timeout_s, task, place)

    def _latest(self, rank: int, error: RayError) -> RayError:
        # Ray first says "unavailable" and knows a little later what happened; of a host that is gone, much later.
        if isinstance(error, ActorUnavailableError) and not self._members[rank].answers:
            return error
        try:
            ray.get(self.ping(rank), timeout=_REASON_SECONDS)
        except RayError as later:
            error = later if isinstance(later, RayActorError) else error
        return error

    def describe(self, rank: int) -> str:
        """Return a worker's rank, node and process for people."""
        where = f" ({self._places[rank].describe()})" if rank < len(self._places) else ""
        return f"worker {rank} on node {self.layout.slots[rank].node}{where}"

    def _submit(self, rank: int, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        values = [argument.handle if isinstance(argument, Shared) else argument for argument in arguments]
        try:
            return self._actors[rank].run.remote(task, *values)
        except TypeError as error:
            raise InvalidArgumentError(
                f"sending a task to worker {rank}", str(error), "What a worker is given must be possible to pickle."
            ) from error

    def _place(self, rank: int, reply: Any) -> WorkerPlace:
        try:
            place: WorkerPlace = ray.get(reply)
        except ActorUnschedulableError as error:
            raise self._not_started(rank, f"the node is gone: {error}", cause="node gone") from error
        except RayActorError as error:
            raise self._not_started(rank, str(error), "shardfit must be installed on every node.") from error
        return place

    def _not_started(self, rank: int, found: str, advice: str = "", cause: LossCause = "") -> WorkerLostError:
        error = WorkerLostError(f"starting {self.describe(rank)}", found, advice)
        return error.at(rank, self.layout.slots[rank].node).because(cause)


def _authenticate() -> None:
    # Ray does this for clusters that it starts, not for those that it joins; one without authentication ignores it.
    os.environ["RAY_AUTH_MODE"] = "token"
    # The variable is read when Ray is imported, which has been. Versions without this name have no authentication.
    if config := getattr(ray._raylet, "Config", None):
        config.initialize("")


def _members() -> list[Member]:
    # The cluster takes many seconds to strike off a host that went away, and a retry must not count on it meanwhile.
    name = LOCAL_NODE if started_here() else ""
    members = [member_of(node, name) for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(max_workers=32) as pool:
        there = list(pool.map(lambda member: member.answers, members))
    return in_order(member for member, answered in zip(members, there, strict=True) if answered)


def _run_on(node: str, timeout_s: float, task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task on a node, beside its workers; wait for its answer if `timeout_s` is given."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    reply = ray.remote(task).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(*arguments)
    return ray.get(reply, timeout=timeout_s) if timeout_s else None


def _works(node: str) -> bool:
    try:
        return bool(_run_on(node, _LOOK_SECONDS, is_there))
    except RayError:
        return False


# What the source and the exporter of Ray datasets need of Ray.


def dataset_blocks(dataset: Any) -> tuple[list[Block], pa.Schema | None]:
    """Return the blocks of a materialised dataset, in order, and its Arrow schema, or None where blocks are pandas'.

    A block is Ray's reference to it, the number of its first row that counts, how many rows, and its bytes.

    Raises:
        DataError: The dataset is lazy: its rows may differ each time that they are computed.
    """
    from ray.data.dataset import MaterializedDataset  # Slow to import, and only needed for datasets.

    return blocks_of(dataset, MaterializedDataset)


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

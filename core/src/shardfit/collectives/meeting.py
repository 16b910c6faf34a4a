"""How the workers of an attempt get connected: a meeting point on the driver tells each the addresses of all."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from shardfit.collectives.contract import Collectives, SoleWorker
from shardfit.collectives.sockets import Peers
from shardfit.collectives.wire import frame, greet, introduce, receive_header, tune
from shardfit.engine import WorkerGroup
from shardfit.errors import InvalidArgumentError, WorkerError, WorkerLostError

_KEY_BYTES = 32
_TICK_SECONDS = 0.2
# Whoever connects and is a worker proves it in a moment; one who is not must not keep the others waiting.
_GREETING_SECONDS = 5.0

_Arrivals = dict[int, tuple[socket.socket, object]]


@dataclass(frozen=True, slots=True)
class Meeting:
    """What workers meet with. Made by `meeting_point`; passed to workers as a trainer's `meeting`, or part of it.

    Args:
        world_size: Number of workers.
        host: Address of the meeting point; empty for one worker, who meets nobody.
        port: Its port.
        key: Random; whoever does not have it is not let in.
        join_timeout_s: Seconds to wait until all workers are here.
        timeout_s: Seconds to wait in one call for a peer that is there and does not come.
    """

    world_size: int
    host: str = ""
    port: int = 0
    key: bytes = field(default=b"", repr=False)
    join_timeout_s: float = 300.0
    timeout_s: float = 1800.0


@contextmanager
def meeting_point(workers: WorkerGroup, join_timeout_s: float = 300.0, timeout_s: float = 1800.0) -> Iterator[Meeting]:
    """Hold a meeting point while an attempt lasts. Called on the driver: `Trainer.rendezvous` may return it as it is.

    It listens on the cluster's address of the driver only, and lets in who has the meeting's random key.

    Args:
        workers: The group that meets.
        join_timeout_s: Seconds that a worker waits until all are here.
        timeout_s: Seconds that a worker waits in one call for a peer that is there and does not come.

    Raises:
        WorkerError: The address cannot be listened on.
    """
    world_size = workers.layout.workers
    if world_size == 1:
        yield Meeting(1, join_timeout_s=join_timeout_s, timeout_s=timeout_s)
        return
    listener = _listen(workers.address, world_size)
    key = secrets.token_bytes(_KEY_BYTES)
    ended = threading.Event()
    arguments = (listener, key, world_size, time.monotonic() + join_timeout_s, ended)
    host = threading.Thread(target=_introduce_all, args=arguments, name="shardfit-meeting", daemon=True)
    host.start()
    try:
        yield Meeting(world_size, workers.address, listener.getsockname()[1], key, join_timeout_s, timeout_s)
    finally:
        ended.set()
        host.join()
        listener.close()


@contextmanager
def join(rank: int, meeting: Meeting | None) -> Iterator[Collectives]:
    """Connect this worker with its peers while the context lasts. Called on every worker, by `WorkerContext.join`.

    Args:
        rank: Of this worker.
        meeting: What `meeting_point` yielded.

    Raises:
        InvalidArgumentError: There is no meeting: `rendezvous` yielded none.
        WorkerError: Not all workers came in time; names those that did not.
        WorkerLostError: The driver or a peer is gone.
    """
    if meeting is None:
        asked, advice = f"joining the other workers on worker {rank}", "Let rendezvous return meeting_point(workers)."
        raise InvalidArgumentError(asked, "the meeting is None", advice)
    if meeting.world_size == 1:
        yield SoleWorker()
        return
    connections = _connect(rank, meeting)
    with Peers(rank, connections, meeting.timeout_s) as peers:
        yield peers


def _listen(address: str, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, 0), family=family, backlog=backlog)
    except OSError as error:
        raise WorkerError(
            f"listening on address {address!r}", f"{error}", "It must be an address of this machine."
        ) from error


def _introduce_all(
    listener: socket.socket, key: bytes, world_size: int, deadline: float, ended: threading.Event
) -> None:
    here: _Arrivals = {}
    with ExitStack() as stack:
        while len(here) < world_size and not ended.is_set() and time.monotonic() < deadline:
            here.update(_arrivals(listener, key, world_size, stack))
        missing = [rank for rank in range(world_size) if rank not in here]
        _answer(here, [] if missing else [here[rank][1] for rank in range(world_size)], missing)
        while missing and not ended.is_set():
            _answer(_arrivals(listener, key, world_size, stack), [], missing)


def _arrivals(listener: socket.socket, key: bytes, world_size: int, stack: ExitStack) -> _Arrivals:
    """Return whoever arrives now, and where they listen, by their rank."""
    arrived: _Arrivals = {}
    for rank, connection in _accept(listener, key, range(world_size), stack):
        with suppress(OSError, ValueError):
            arrived[rank] = (connection, receive_header(connection)["listens"])
    return arrived


def _answer(arrived: _Arrivals, addresses: list[object], missing: list[int]) -> None:
    for connection, _ in arrived.values():
        with suppress(OSError):
            connection.sendall(frame({"addresses": addresses, "missing": missing}))


def _accept(
    listener: socket.socket, key: bytes, expected: Container[int], stack: ExitStack
) -> Iterator[tuple[int, socket.socket]]:
    """Yield the rank and the connection of whoever connects now, if they are expected; turn others away."""
    listener.settimeout(_TICK_SECONDS)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return
    connection.settimeout(_GREETING_SECONDS)
    try:
        rank = greet(connection, key)
    except OSError:
        rank = -1
    if rank in expected:
        yield rank, stack.enter_context(connection)
    else:
        connection.close()


def _connect(rank: int, meeting: Meeting) -> dict[int, socket.socket]:
    asked = f"meeting the other workers on worker {rank}"
    deadline = time.monotonic() + meeting.join_timeout_s
    with ExitStack() as stack:
        addresses, listener = _arrive(rank, meeting, asked, deadline, stack)
        # All are here now: that the last came just in time must not be too late for their connections.
        deadline = max(deadline, time.monotonic() + _GREETING_SECONDS)
        connections: dict[int, socket.socket] = {}
        for peer, (host, port) in enumerate(addresses[:rank]):
            connections[peer] = _call(asked, f"worker {peer}", (host, port), deadline, meeting.key, rank, stack)
        while len(connections) < meeting.world_size - 1:
            if time.monotonic() > deadline:
                raise _late(asked, meeting, sorted(set(range(meeting.world_size)) - {rank} - set(connections)))
            connections.update(_accept(listener, meeting.key, range(rank + 1, meeting.world_size), stack))
        for connection in connections.values():
            tune(connection)
        listener.close()
        # From here on the connections belong to whoever called.
        stack.pop_all()
        return connections


def _arrive(
    rank: int, meeting: Meeting, asked: str, deadline: float, stack: ExitStack
) -> tuple[list[tuple[str, int]], socket.socket]:
    """Tell the meeting point where this worker listens; return where all do, and this one's listener."""
    driver = _call(asked, "the driver", (meeting.host, meeting.port), deadline, meeting.key, rank, stack)
    with driver:
        # The way to the driver leads through the cluster's network, which the peers can reach, too.
        listener = stack.enter_context(_listen(driver.getsockname()[0], meeting.world_size))
        try:
            driver.sendall(frame({"listens": listener.getsockname()[:2]}))
            driver.settimeout(max(deadline - time.monotonic(), 0.0) + _GREETING_SECONDS)
            answer = receive_header(driver)
        except OSError as error:
            raise WorkerLostError(asked, f"the driver is gone: {error}") from error
    if answer["missing"]:
        raise _late(asked, meeting, answer["missing"], came_late=rank in answer["missing"])
    return [(str(host), int(port)) for host, port in answer["addresses"]], listener


def _call(
    asked: str, who: str, address: tuple[str, int], deadline: float, key: bytes, rank: int, stack: ExitStack
) -> socket.socket:
    try:
        # Where the time is nearly up, whoever listens still says who is missing.
        remaining = max(deadline - time.monotonic(), 0.0) + _GREETING_SECONDS
        connection = stack.enter_context(socket.create_connection(address, timeout=remaining))
        introduce(connection, key, rank)
    except OSError as error:
        found = f"{who} at {address[0]}:{address[1]} cannot be reached: {error}"
        raise WorkerLostError(asked, found, "Workers must reach each other and the driver by address.") from error
    return connection


def _late(asked: str, meeting: Meeting, missing: list[int], *, came_late: bool = False) -> WorkerError:
    advice = "Every worker must call context.join; pass meeting_point a longer join_timeout_s if one is slow."
    who = ", ".join(f"worker {rank}" for rank in missing)
    waited = f"waited {meeting.join_timeout_s:g} s for {who}"
    return WorkerError(asked, f"it came when the driver had {waited}" if came_late else waited, advice)


__all__ = ["Meeting", "join", "meeting_point"]

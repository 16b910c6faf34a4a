"""Collectives over sockets: every worker is connected with every other."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shardfit.collectives.contract import Call, Collectives
from shardfit.collectives.wire import IncomingFrame, frame
from shardfit.errors import ShardfitError, WorkerError, WorkerLostError

# How often to see whether those that have sent their part are still there.
_LOOK_SECONDS = 1.0
_FAREWELL_SECONDS = 1.0
# How long to listen, when a connection breaks, for a peer that knows why.
_REASON_SECONDS = 1.0
_MOST_ERROR_CHARACTERS = 2000
_LEFT, _FAILED, _LOST = "left", "failed", "lost"
_FAREWELLS = frozenset({_LEFT, _FAILED, _LOST})


@dataclass(frozen=True, slots=True)
class Farewell:
    """What a worker says instead of a call when it goes.

    Args:
        name: `left`, `failed` or `lost`.
        rank: Which worker it is about: the one that speaks, or the one that was the reason.
        error: What it failed with, in one text.
    """

    name: str
    rank: int
    error: str = ""


class Peers(Collectives):
    """The collectives of a worker with peers; made by `WorkerContext.join`. A context manager: leaving says goodbye.

    A peer whose process died is noticed at once. One whose machine vanished without a word is noticed by the engine,
    which ends the workers; without an engine, after `timeout_s`.

    Args:
        rank: 0 to world_size - 1.
        connections: Rank -> socket of every other worker.
        timeout_s: Seconds to wait in one call for a peer that is there and does not come.
    """

    def __init__(self, rank: int, connections: Mapping[int, socket.socket], timeout_s: float) -> None:
        super().__init__(rank, len(connections) + 1)
        self._connections = dict(connections)
        self._timeout_s = timeout_s
        self._calls = 0
        self._reason: Farewell | None = None
        for connection in self._connections.values():
            connection.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        words = Farewell(_LEFT, self.rank)
        if kind is not None:
            # The others should hear of the first reason, not of what followed from it.
            words = self._reason or Farewell(_FAILED, self.rank, f"{kind.__name__}: {value}"[:_MOST_ERROR_CHARACTERS])
        farewell = frame(asdict(words))
        for connection in self._connections.values():
            with suppress(OSError):
                connection.settimeout(_FAREWELL_SECONDS)
                connection.sendall(farewell)
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def exchange(self, call: Call, payloads: Sequence[npt.NDArray[Any]]) -> list[tuple[Call, Any]]:
        """Send and receive at the same time, so that full buffers on both sides cannot stop everything."""
        self._calls += 1
        swap = _Swap(call, self.rank, self._connections, payloads, self._timeout_s, self._calls)
        try:
            received = swap.run()
        finally:
            self._reason = swap.reason
        received[self.rank] = (call, payloads[self.rank])
        return [received[rank] for rank in range(self.world_size)]


class _Swap:
    """One exchange: a frame to each peer and a frame from each."""

    def __init__(
        self,
        call: Call,
        rank: int,
        connections: Mapping[int, socket.socket],
        payloads: Sequence[npt.NDArray[Any]],
        timeout_s: float,
        number: int,
    ) -> None:
        self.reason: Farewell | None = None
        self._asked = f"calling {call} on worker {rank} (exchange {number})"
        self._connections = connections
        self._timeout_s = timeout_s
        self._outgoing: dict[int, list[memoryview]] = {}
        # Not `asdict`, which copies deeply: a run makes thousands of calls.
        header = {"name": call.name, "detail": call.detail, "dtype": call.dtype, "shape": call.shape}
        for peer in connections:
            body = payloads[peer].view(np.uint8)
            self._outgoing[peer] = [memoryview(frame(header, len(body))), body.data]
        self._incoming = {peer: IncomingFrame() for peer in connections}
        self._received: dict[int, tuple[Call, Any]] = {}
        self._broken: set[int] = set()

    def run(self) -> dict[int, tuple[Call, Any]]:
        """Return what came, by rank."""
        deadline = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            for peer, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
            while selector.get_map():
                ready = selector.select(_LOOK_SECONDS)
                for key, events in ready:
                    self._serve(key.data, events)
                    self._watch(selector, key.data)
                if not ready:
                    self._look_after_those_that_sent()
                if time.monotonic() > deadline:
                    raise self._late()
        return self._received

    def _serve(self, peer: int, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._receive(peer)
        if events & selectors.EVENT_WRITE:
            self._send(peer)

    def _watch(self, selector: selectors.BaseSelector, peer: int) -> None:
        wanted = 0 if peer in self._received and peer not in self._broken else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if self._outgoing[peer] else 0
        connection = self._connections[peer]
        if wanted:
            selector.modify(connection, wanted, peer)
        else:
            selector.unregister(connection)

    def _send(self, peer: int) -> None:
        waiting = self._outgoing[peer]
        try:
            while waiting:
                sent = self._connections[peer].send(waiting[0])
                waiting[0] = waiting[0][sent:]
                if not len(waiting[0]):
                    waiting.pop(0)
        except BlockingIOError:
            return
        except OSError:
            # They are gone. What they said before explains more, and may still be here to read.
            waiting.clear()
            self._broken.add(peer)
            if peer in self._received:
                self._incoming[peer] = IncomingFrame()

    def _receive(self, peer: int) -> None:
        incoming = self._incoming[peer]
        try:
            while not incoming.take_from(self._connections[peer]):
                pass
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(self._reason_of(Farewell(_LOST, peer, str(error)))) from error
        header = incoming.header or {}
        if header["name"] in _FAREWELLS:
            raise self._gone(Farewell(**header))
        theirs = Call(header["name"], header["detail"], header["dtype"], tuple(header["shape"]))
        self._received[peer] = (theirs, incoming.payload)

    def _look_after_those_that_sent(self) -> None:
        for peer in self._received:
            error = "the connection was closed"
            try:
                if self._connections[peer].recv(1, socket.MSG_PEEK):
                    continue
            except BlockingIOError:
                continue
            except OSError as broken:
                error = str(broken)
            raise self._gone(self._reason_of(Farewell(_LOST, peer, error)))

    def _reason_of(self, loss: Farewell) -> Farewell:
        """Return why a connection broke, if another peer says so; else that it broke.

        A peer that goes because a third one failed cannot say so in the middle of a frame: its connection just ends.
        The third one's own words may be on their way.
        """
        deadline = time.monotonic() + _REASON_SECONDS
        with selectors.DefaultSelector() as selector:
            for peer, connection in self._connections.items():
                if peer != loss.rank:
                    selector.register(connection, selectors.EVENT_READ, peer)
                    if peer in self._received:
                        self._incoming[peer] = IncomingFrame()
            while selector.get_map() and (remaining := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(remaining):
                    try:
                        words = self._farewell_of(key.data)
                    except OSError:
                        selector.unregister(key.fileobj)
                        continue
                    if words is not None and words.name != _LEFT:
                        return words
        return loss

    def _farewell_of(self, peer: int) -> Farewell | None:
        """Return the farewell of a peer if that is what arrives next; a call that it made before is passed over."""
        with suppress(BlockingIOError):
            while True:
                while not self._incoming[peer].take_from(self._connections[peer]):
                    pass
                header = self._incoming[peer].header or {}
                if header["name"] in _FAREWELLS:
                    return Farewell(**header)
                self._incoming[peer] = IncomingFrame()
        return None

    def _gone(self, words: Farewell) -> ShardfitError:
        self.reason = words
        who = f"worker {words.rank}"
        if words.name == _LOST:
            return WorkerLostError(self._asked, f"{who} is gone: {words.error}", "Its own log or the engine says why.")
        if words.name == _FAILED:
            # Not the error itself, which that worker reports: engines report this kind last.
            return WorkerLostError(self._asked, f"{who} failed: {words.error}")
        return WorkerError(self._asked, f"{who} has left", "Every worker makes the same calls in the same order.")

    def _late(self) -> WorkerError:
        late = sorted(set(self._connections) - set(self._received))
        who = ", ".join(f"worker {peer}" for peer in late) or "no worker, but not everything could be sent"
        return WorkerError(
            self._asked,
            f"waited {self._timeout_s:g} s for {who}",
            "Pass meeting_point a longer timeout_s.",
        )


__all__ = ["Peers"]

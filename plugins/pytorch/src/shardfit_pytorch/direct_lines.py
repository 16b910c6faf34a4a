"""Lines from each rank to every other, beside the loop's process group: for few bytes, often."""

from __future__ import annotations

import selectors
import socket
import struct
from types import TracebackType
from typing import Any, Self

from shardfit.collectives.meeting import Meeting, connect
from shardfit.errors import WorkerError

SUPPORTED = hasattr(socket, "MSG_DONTWAIT")  # Not on Windows.

# Which swap it is and how many bytes follow.
_HEADER = struct.Struct("<QQ")
_BUFFER_BYTES = 2**20


class DirectLines:
    """Connects the ranks when that is first asked for. A context manager: its lines end with it, as others notice.

    The thread that swaps sends and receives by itself, without another one to hand it on, nor anything to choose among
    as long as the system's buffers take what is sent: `shardfit.collectives`, whose calls may be of any size and say
    what they are, takes several times as long for few bytes.

    Args:
        rank: Of this worker.
        meeting: Where workers get connected.
    """

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self._rank, self._meeting = rank, meeting
        self._lines: dict[int, socket.socket] = {}
        self._swaps = 0

    def open(self) -> None:
        """Connect the ranks, all of which must call this; nothing if they are connected.

        Raises:
            WorkerError: Not all came in time.
            WorkerLostError: The driver or a rank is gone.
        """
        if not self._lines:
            self._lines = connect(self._rank, self._meeting)
            for line in self._lines.values():
                line.setblocking(True)
                line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)

    def swap(self, payload: Any) -> list[Any]:
        """Send bytes to every other rank; return what each sends, as many, by rank: this one's as they are.

        Called on every rank, in the same order.

        Raises:
            OSError: A rank is gone.
            WorkerError: Ranks send different numbers of bytes.
        """
        mine = memoryview(payload).cast("B")
        self._swaps += 1
        header = _HEADER.pack(self._swaps, len(mine))
        unsent = dict.fromkeys(self._lines, memoryview(b"".join((header, mine))))
        came = {peer: bytearray(len(header) + len(mine)) for peer in self._lines}
        missing = {peer: memoryview(buffer) for peer, buffer in came.items()}
        self._push(unsent)
        if unsent:
            self._push_and_pull(unsent, missing)
        for peer, buffer in came.items():
            while len(missing[peer]) > len(mine):
                self._pull(missing, peer, len(missing[peer]) - len(mine))
            if buffer[: len(header)] != header:
                number, count = _HEADER.unpack(buffer[: len(header)])
                raise self._disagree(peer, number, count, len(mine))
            while missing[peer]:
                self._pull(missing, peer, len(missing[peer]))
        theirs = {peer: memoryview(buffer)[len(header) :] for peer, buffer in came.items()}
        return [payload if rank == self._rank else theirs[rank] for rank in range(len(theirs) + 1)]

    def close(self) -> None:
        """End the lines, if there are any."""
        for line in self._lines.values():
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _push(self, unsent: dict[int, memoryview]) -> None:
        """Send what the system's buffers take, and forget it."""
        for peer in list(unsent):
            try:
                unsent[peer] = unsent[peer][self._lines[peer].send(unsent[peer], socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            if not unsent[peer]:
                del unsent[peer]

    def _pull(self, missing: dict[int, memoryview], peer: int, most: int, flags: int = 0) -> None:
        """Receive some of what is missing of a rank."""
        count = self._lines[peer].recv_into(missing[peer], most, flags)
        if not count:
            raise ConnectionError(f"rank {peer} has ended its line")
        missing[peer] = missing[peer][count:]

    def _push_and_pull(self, unsent: dict[int, memoryview], missing: dict[int, memoryview]) -> None:
        """Send the rest; receive meanwhile, for two ranks whose buffers are full would wait for each other."""
        with selectors.DefaultSelector() as selector:
            for peer, line in self._lines.items():
                selector.register(line, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
            while unsent:
                for key, events in selector.select():
                    if events & selectors.EVENT_READ and missing[key.data]:
                        self._pull(missing, key.data, len(missing[key.data]), socket.MSG_DONTWAIT)
                self._push(unsent)

    def _disagree(self, peer: int, number: int, count: int, expected: int) -> WorkerError:
        return WorkerError(
            f"swapping {expected} bytes on rank {self._rank} (swap {self._swaps})",
            f"rank {peer} sends {count} bytes (swap {number})",
            "Every rank takes the same steps of the same models in the same order.",
        )

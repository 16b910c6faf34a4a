"""A proxy before a real server whose connections fail as a test wants: an answer of 503, or a cut in the middle."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyProxy:
    """Passes connections on to a port of this machine.

    Args:
        target: The port.
        fault: Connection number, from 0 -> `"busy"`, a number of bytes sent after which it is cut, or None.
    """

    def __init__(self, target: int, fault: Callable[[int], str | int | None]) -> None:
        self._target, self._fault = target, fault
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                fault = self._fault(self.connections)
                self.connections += 1
                threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str | int | None) -> None:
        with suppress(OSError), client:
            if fault == "busy":
                client.recv(65536)
                client.sendall(_BUSY)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                threading.Thread(target=self._pass_on, args=(server, client, None), daemon=True).start()
                self._pass_on(client, server, fault if isinstance(fault, int) else None)

    def _pass_on(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while (block := source.recv(65536)) and (limit is None or passed < limit):
                target.sendall(block)
                passed += len(block)
            for one in (source, target):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_proxy(target: int, fault: Callable[[int], str | int | None]) -> Iterator[FaultyProxy]:
    """Yield a proxy that runs."""
    proxy = FaultyProxy(target, fault)
    try:
        yield proxy
    finally:
        proxy.close()

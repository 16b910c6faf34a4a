"""What peers say to each other over a socket: a handshake that proves the key, then frames of a header and bytes.

Nothing that arrives is unpickled: a header is JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
from collections.abc import Mapping
from typing import Any

_LENGTHS = struct.Struct("<IQ")
_RANK = struct.Struct("<q")
_NONCE_BYTES = 32
_PROOF_BYTES = hashlib.sha256().digest_size
_MOST_HEADER_BYTES = 2**24
# A connection that nobody uses is checked after so many seconds, every so many, so many times.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}


class HandshakeError(ConnectionError):
    """The other side does not have the key."""


def greet(connection: socket.socket, key: bytes) -> int:
    """Prove the key to whoever connected and have it proved; return the rank that they claim.

    Raises:
        OSError: They do not have the key, or do not answer in time.
    """
    mine = secrets.token_bytes(_NONCE_BYTES)
    connection.sendall(mine)
    claimed = receive_exactly(connection, _RANK.size)
    theirs = receive_exactly(connection, _NONCE_BYTES)
    proof = receive_exactly(connection, _PROOF_BYTES)
    if not hmac.compare_digest(proof, _prove(key, b"connects", mine + theirs + claimed)):
        raise HandshakeError("whoever connected does not have the key of this meeting")
    connection.sendall(_prove(key, b"listens", mine + theirs + claimed))
    rank: int = _RANK.unpack(claimed)[0]
    return rank


def introduce(connection: socket.socket, key: bytes, rank: int) -> None:
    """Prove the key to the one connected to, say this worker's rank, and have the key proved.

    Raises:
        OSError: They do not have the key, or do not answer in time.
    """
    theirs = receive_exactly(connection, _NONCE_BYTES)
    mine, claimed = secrets.token_bytes(_NONCE_BYTES), _RANK.pack(rank)
    connection.sendall(claimed + mine + _prove(key, b"connects", theirs + mine + claimed))
    if not hmac.compare_digest(
        receive_exactly(connection, _PROOF_BYTES), _prove(key, b"listens", theirs + mine + claimed)
    ):
        raise HandshakeError("the one connected to does not have the key of this meeting")


def tune(connection: socket.socket) -> None:
    """Let small frames leave at once, and let a peer whose machine is gone be noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def frame(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """Return a frame without its payload, which follows."""
    encoded = json.dumps(header).encode()
    return _LENGTHS.pack(len(encoded), payload_bytes) + encoded


def receive_header(connection: socket.socket) -> dict[str, Any]:
    """Return the header of a frame without payload.

    Raises:
        OSError: The connection ends, or nothing comes in time.
    """
    header_bytes, _ = _LENGTHS.unpack(receive_exactly(connection, _LENGTHS.size))
    header: dict[str, Any] = json.loads(receive_exactly(connection, _checked(header_bytes)))
    return header


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    """Return the next bytes.

    Raises:
        OSError: The connection ends before, or nothing comes in time.
    """
    received = bytearray()
    while len(received) < length:
        more = connection.recv(length - len(received))
        if not more:
            raise ConnectionError("the connection was closed")
        received += more
    return bytes(received)


class IncomingFrame:
    """A frame that arrives in pieces."""

    def __init__(self) -> None:
        self.header: dict[str, Any] | None = None
        self.payload = bytearray()
        self._lengths = bytearray(_LENGTHS.size)
        self._encoded = bytearray()
        self._target, self._filled, self._stage = self._lengths, 0, 0

    def take_from(self, connection: socket.socket) -> bool:
        """Take what has arrived, never more than this frame; return whether it is complete.

        Raises:
            OSError: The connection ended or broke.
            BlockingIOError: Nothing has arrived.
        """
        count = connection.recv_into(memoryview(self._target)[self._filled :])
        if not count:
            raise ConnectionError("the connection was closed")
        self._filled += count
        while self._stage < 3 and self._filled == len(self._target):
            self._next_stage()
        return self._stage == 3

    def _next_stage(self) -> None:
        self._stage += 1
        self._filled = 0
        if self._stage == 1:
            header_bytes, payload_bytes = _LENGTHS.unpack(self._lengths)
            self._encoded, self.payload = bytearray(_checked(header_bytes)), bytearray(payload_bytes)
            self._target = self._encoded
        elif self._stage == 2:
            self.header = json.loads(self._encoded)
            self._target = self.payload


def _checked(header_bytes: int) -> int:
    if not 0 < header_bytes <= _MOST_HEADER_BYTES:
        raise ConnectionError(f"the length of a header is {header_bytes!r} bytes")
    return header_bytes


def _prove(key: bytes, side: bytes, text: bytes) -> bytes:
    return hmac.digest(key, side + text, "sha256")


__all__ = [
    "HandshakeError",
    "IncomingFrame",
    "frame",
    "greet",
    "introduce",
    "receive_exactly",
    "receive_header",
    "tune",
]

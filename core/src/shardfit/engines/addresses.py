"""Whether something listens at an address."""

from __future__ import annotations

import socket

_CONNECT_SECONDS = 1.0


def answers(address: str) -> bool:
    """Return whether something listens at `address`, a host and a port; waits a second at most."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, ValueError, OverflowError):
        return False

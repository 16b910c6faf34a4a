"""How far an upload is, as a frozen value for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """A part of an artifact has been handed to the service.

    Args:
        artifact: Identifier.
        name: The file that the part is of.
        done: Bytes of the file so far.
        total: Bytes of the file.
    """

    artifact: str
    name: str
    done: int
    total: int


ProgressSink = Callable[[UploadProgress], None]
"""Receives progress; called from the threads that upload, must not block for long."""

"""Giving memory back that allocators keep for later: what a phase has freed is of no use to the next."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back_memory() -> None:
    """Return unused memory of Arrow's pool and of the C library to the system, where it can be told to."""
    pa.default_memory_pool().release_unused()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    # Other C libraries than glibc have no such function.
    if trim is not None:
        trim(0)

"""What a process may do that belongs to a worker alone, and one that is the user's own may not.

A worker of the inline engine runs in the user's process, whose libraries are the user's business. A Ray worker has a
process of its own: there Arrow gives memory back at once, and frameworks are imported without what training never uses.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pyarrow as pa

_dedicated = Event()


def dedicate_process() -> None:
    """Say that this process belongs to a worker alone. Called by whatever starts such processes, before any task.

    From now on Arrow takes memory from the system, which gets it back when a batch is done with; its own pools keep it.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    _dedicated.set()


def is_dedicated() -> bool:
    """Return whether this process belongs to a worker alone."""
    return _dedicated.is_set()


@contextmanager
def doing_without(*packages: str) -> Iterator[None]:
    """Let imports of packages fail while the context lasts, for libraries that go on without them.

    Packages that were imported before stay, and any can be imported afterwards. Other threads that import one of them
    meanwhile fail, too, so this is for dedicated processes.

    Args:
        packages: Names of top-level packages.
    """
    absent = [name for name in packages if name not in sys.modules]
    # Python's own way of saying that a module cannot be imported.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def importing_for_good() -> Iterator[None]:
    """Keep Python's collector away from what is imported while the context lasts; nothing where others live here, too.

    A framework is some 500,000 objects that stay. To look for garbage among them takes a collector a third of a second,
    several times while they come, and again once a loop runs.
    """
    if not is_dedicated() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


__all__ = ["dedicate_process", "doing_without", "importing_for_good", "is_dedicated"]

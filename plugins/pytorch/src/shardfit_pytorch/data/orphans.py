"""A `DataLoader` worker ends with the process of its loop, at once.

PyTorch's workers look every few seconds whether their parent process has changed. Of those that a fork server started
it never does, and they and the server would outlive a killed rank for ever. Of those that were forked it does, but
until then they hold open what the rank had open: its peers and its engine do not see its connections end.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import connection, parent_process

_watched: set[int] = set()


def end_with_the_loop() -> None:
    """Let this process end as soon as the one that made it has; does nothing where that is set up already."""
    # A process that is forked from this one has the set, but not the thread.
    if os.getpid() in _watched or (parent := parent_process()) is None or parent.pid is None:
        return
    _watched.add(os.getpid())
    try:
        # The sentinel alone does not do: it stays open for as long as any process that the loop's forked has it.
        ending = [os.pidfd_open(parent.pid)] if hasattr(os, "pidfd_open") else [parent.sentinel]
    except ProcessLookupError:
        os._exit(1)
    threading.Thread(target=_wait, args=(ending,), name="shardfit-orphan", daemon=True).start()


def _wait(ending: list[int]) -> None:
    connection.wait(ending)
    # Nobody is left to take a batch; ending in the ordinary way might wait for somebody to do so.
    os._exit(1)

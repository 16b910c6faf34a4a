"""Keeping a loop's process group until nothing happens in it any more.

PyTorch ends the threads of a group when its last reference goes, and holds Python's lock meanwhile. A thread that has
just finished a collective may want that lock to let go of its result: then both wait for ever. That happens to loops
that return, or destroy their group, right after their last step. So a reference is kept here, until later.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

import torch.distributed as dist

_of_the_last_run: list[Any] = []


class GroupKeeper:
    """Keeps the default groups that a loop makes. Those of an earlier run in this process, idle since, go now."""

    def __init__(self) -> None:
        if _of_the_last_run:
            _of_the_last_run.clear()
            # Else a process that a DataLoader forks might collect what is left of them, and has none of their threads.
            with warnings.catch_warnings():
                # Files that others left open have nothing to do with this run.
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
        self._groups: list[Any] = []

    def look(self) -> None:
        """Keep the group that there is now, if there is one. Cheap: called for each batch."""
        if dist.is_initialized():
            group = dist.group.WORLD
            if not self._groups or self._groups[-1] is not group:
                self._groups.append(group)

    def keep(self) -> None:
        """Keep the groups for as long as the process does nothing else."""
        _of_the_last_run.extend(self._groups)
        self._groups.clear()

    def let_go(self) -> None:
        """Close the groups now; they must have been idle for a moment. Peers that wait in a collective are told."""
        if dist.is_initialized():
            dist.destroy_process_group()
        self._groups.clear()

"""Where a worker's matrix lies, in memory or on the local disk: decided from the memory plan, unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from shardfit.errors import InvalidArgumentError

if TYPE_CHECKING:
    from shardfit_xgboost.config import XGBConfig

STORAGE_PARAMETERS = frozenset({"storage", "cache_folder", "cache_budget"})

_KINDS = ("auto", "memory", "disk")
_PAGE_BYTES = tuple(2**power for power in range(27, 22, -1))
# What is left is for the page cache, which spares readings of the disk.
_PLANNED_SHARE = 0.9


@dataclass(frozen=True)
class Storage:
    """Where the matrices of a run lie.

    Args:
        asked: `auto`, `memory` or `disk`.
        folder: Of the disk cache; None for the machine's folder of temporary files.
        budget: Most bytes of the disk cache of one worker and dataset, or None for what the disk has.
        on_disk: What was decided.
        page_bytes: Decoded bytes of a page of the disk cache.
    """

    asked: Literal["auto", "memory", "disk"] = "auto"
    folder: str | None = None
    budget: int | None = None
    on_disk: bool = False
    page_bytes: int = _PAGE_BYTES[0]

    def page_rows(self, features: int) -> int:
        """Return how many rows a page has, 1 or more."""
        return max(1, self.page_bytes // (4 * max(features, 1)))


def read_storage(run: Mapping[str, Any], params: Mapping[str, Any]) -> Storage:
    """Return what the parameters say of storage.

    Args:
        run: Those of `STORAGE_PARAMETERS` that were given.
        params: Those of the booster.

    Raises:
        InvalidArgumentError: A value cannot be used, or trees are asked for that would read the disk once a split.
    """
    kind, folder, budget = run.get("storage", "auto"), run.get("cache_folder"), run.get("cache_budget")
    if kind not in _KINDS:
        raise InvalidArgumentError("reading storage", f"found {kind!r}", f"Use one of {', '.join(_KINDS)}.")
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise InvalidArgumentError("reading cache_folder", f"found {folder!r}", "Use the path of a folder.")
    if budget is not None and (not hasattr(budget, "__index__") or isinstance(budget, bool) or budget < 1):
        raise InvalidArgumentError("reading cache_budget", f"found {budget!r}", "Use a number of bytes, 1 or more.")
    if kind == "disk" and (why := why_not_on_disk(params)):
        raise InvalidArgumentError("training with storage 'disk'", why, "Use storage 'memory', or change that.")
    return Storage(kind, None if folder is None else os.fspath(folder), budget, on_disk=kind == "disk")


def why_not_on_disk(params: Mapping[str, Any]) -> str:
    """Return why matrices of a booster cannot lie on the disk, or an empty string."""
    if params.get("grow_policy") == "lossguide":
        return "grow_policy 'lossguide' would read the whole matrix from the disk for every split"
    if params.get("booster") == "dart":
        return "booster 'dart' would read the whole matrix from the disk for every tree that it drops"
    return ""


def sparse_storage(config: XGBConfig) -> tuple[XGBConfig, str]:
    """Return the configuration for sparse features, whose matrix is in memory, and an empty string.

    Raises:
        InvalidArgumentError: The disk is asked for.
    """
    if config.storage.asked == "disk":
        raise InvalidArgumentError(
            "training with storage 'disk'",
            "the features are sparse, and their matrix is made in memory only",
            "Use storage 'auto', and more workers where it does not fit.",
        )
    return replace(config, storage=replace(config.storage, on_disk=False)), ""


def choose_storage(
    config: XGBConfig, available: int, needed: Callable[[XGBConfig], int], *, on_gpu: bool
) -> tuple[XGBConfig, str]:
    """Return the configuration with the storage decided, and why it is the disk, or an empty string.

    The only place that decides it: what workers ingest follows from `Storage.on_disk` alone.

    Args:
        config: As asked for.
        available: Bytes that a worker has; 0 where unknown.
        needed: Returns the peak bytes of the largest worker.
        on_gpu: Whether workers have GPUs, which read no disk; `why_no_gpu` keeps them from who asks for the disk.
    """
    storage = config.storage
    disk = _with_pages(config, available, needed)
    if storage.asked == "disk":
        return disk, "The matrix lies on the disk, as asked for (storage='disk')."
    memory = replace(config, storage=replace(storage, on_disk=False))
    if storage.asked == "memory" or not available or on_gpu or why_not_on_disk(config.params):
        return memory, ""
    in_memory = needed(memory)
    if in_memory <= available:
        return memory, ""
    on_disk = needed(disk)
    if on_disk >= in_memory:
        return memory, ""
    sizes = [f"{size / 2**20:,.0f} MiB" for size in (in_memory, available, on_disk)]
    reason = "Out of core: in memory a worker would need {} and has {}; with the matrix on the disk it needs {}."
    return disk, reason.format(*sizes)


def _with_pages(config: XGBConfig, available: int, needed: Callable[[XGBConfig], int]) -> XGBConfig:
    """Return the configuration for the disk, with the largest pages that leave something of the memory.

    A page holds its bins by row and then by column, and each walk through the pages wants one of them. The system
    reads some megabytes around what is wanted: the smaller the pages, the more of that is wasted.
    """
    storage = replace(config.storage, on_disk=True)
    tried = [replace(config, storage=replace(storage, page_bytes=size)) for size in _PAGE_BYTES]
    most = _PLANNED_SHARE * available if available else float("inf")
    return next((disk for disk in tried if needed(disk) <= most), tried[-1])

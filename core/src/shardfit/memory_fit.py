"""Does it fit? The memory plan beside what a worker has: refused, warned of, or let be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from shardfit.binned_trainer import BinnedTrainer
from shardfit.data_shape import DataShape
from shardfit.errors import InfeasibleRequestError
from shardfit.memory_parts import core_parts
from shardfit.memory_plan import MemoryPart, MemoryPlan
from shardfit.scaling import WorkerLayout
from shardfit.trainer import Trainer

MemoryCheck = Literal["refuse", "warn", "off"]

_MOST_WORKERS = 2**20


def plan_memory(
    trainer: Trainer, config: Any, layout: WorkerLayout, shape: DataShape
) -> tuple[Any, WorkerLayout, MemoryPlan]:
    """Return the configuration that gets by with the workers' memory, the layout with the reason, and the plan.

    Args:
        trainer: Says what its library needs, and may choose another way to hold the data.
        config: What `Trainer.configure` returned.
        layout: Where workers run.
        shape: Size of the largest worker's shards.
    """
    available = min((slot.memory for slot in layout.slots if slot.memory), default=0)
    config, reason = trainer.within_memory(config, shape, available)
    if reason and reason not in layout.reasons:
        layout = replace(layout, reasons=(*layout.reasons, reason))
    return config, layout, memory_of(trainer, config, shape, available)


def memory_of(trainer: Trainer, config: Any, shape: DataShape, available: int = 0) -> MemoryPlan:
    """Return what a worker's memory goes to.

    Args:
        trainer: Says what its library needs.
        config: As the trainer has chosen it.
        shape: Size of the largest worker's shards.
        available: Bytes that the worker has; 0 where unknown.
    """
    parts = core_parts(shape, profiles=trainer.profiles)
    return MemoryPlan.of([*parts, *trainer.estimate_memory(config, shape)], available)


def with_kept_bins(memory: MemoryPlan, trainer: Trainer, config: Any, shape: DataShape) -> MemoryPlan:
    """Return the plan with what the largest worker keeps of its bins on the local disk.

    Args:
        memory: Of that worker.
        trainer: Says how large they are, if they can be kept.
        config: As the trainer has chosen it.
        shape: Size of the largest worker's shards.
    """
    if not isinstance(trainer, BinnedTrainer):
        return memory
    size = sum(trainer.kept_bytes(config, rows, shape.features) for rows in (shape.rows, shape.eval_rows) if rows)
    why = "bins as they lie in memory, and labels, for an attempt after a loss"
    return MemoryPlan.of([*memory.parts, MemoryPart("kept bins", size, why, ())], memory.available)


def check_memory(check: MemoryCheck, plan: MemoryPlan, needed: Callable[[int], int], workers: int) -> tuple[str, ...]:
    """Return warnings about memory that will not do.

    Args:
        check: Whether to refuse, to warn, or to say nothing.
        plan: Of the largest worker.
        needed: Number of workers -> peak bytes of the largest of them.
        workers: How many there are.

    Raises:
        InfeasibleRequestError: It will not do, and `check` is `refuse`; says how many workers would.
    """
    if check == "off" or not plan.available or plan.peak <= plan.available:
        return ()
    phase = max(plan.phases, key=plan.phases.__getitem__)
    largest = sorted((part for part in plan.parts if phase in part.phases), key=lambda part: -part.bytes)[:3]
    asked = f"planning the memory of {workers} {'worker' if workers == 1 else 'workers'}"
    shown = ", ".join(f"{part.name} {_mib(part.bytes)}" for part in largest)
    found = f"each needs about {_mib(plan.peak)} in the phase {phase!r} ({shown}) and has {_mib(plan.available)}"
    enough = workers_that_fit(needed, plan.available, workers)
    advice = (
        f"Use {enough:,} workers with as much memory each, or fewer columns"
        if enough
        else "Use workers with more memory, or fewer columns"
    )
    if check == "warn":
        return (f"{asked}: {found}. {advice}.",)
    raise InfeasibleRequestError(asked, found, f"{advice}; memory_check='warn' tries all the same.")


def workers_that_fit(needed: Callable[[int], int], available: int, workers: int) -> int:
    """Return the least number of workers above `workers` that get by with `available` bytes each, or 0 for none.

    Args:
        needed: Number of workers -> peak bytes of the largest of them; does not grow with it.
        available: Bytes that each has.
        workers: How many do not get by.
    """
    if needed(_MOST_WORKERS) > available:
        return 0
    low, high = workers, _MOST_WORKERS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if needed(middle) <= available else (middle, high)
    return high


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"

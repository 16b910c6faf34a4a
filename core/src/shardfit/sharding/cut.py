"""What every contiguous strategy shares: cutting a dataset at global row numbers into a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shardfit.errors import PlanError
from shardfit.shard_plan import ShardingConstraints, ShardPlan
from shardfit.source import Fragment

Int64Array = npt.NDArray[np.int64]


def count_rows(fragments: Sequence[Fragment]) -> Int64Array:
    """Return the rows of each fragment; int64, shape [fragments]."""
    return np.fromiter((fragment.rows for fragment in fragments), dtype=np.int64, count=len(fragments))


def even_boundaries(total: int, workers: int) -> Int64Array:
    """Return `workers + 1` boundaries from 0 to `total` whose distances differ by at most one; int64."""
    # Multiplying before dividing would overflow for many rows and many workers.
    share, rest = divmod(total, workers)
    steps = np.arange(workers + 1, dtype=np.int64)
    return steps * share + np.minimum(steps, rest)


def at_least_one_apart(boundaries: Int64Array, total: int) -> Int64Array:
    """Return sorted boundaries moved as little as it takes to leave nothing empty.

    Args:
        boundaries: Sorted; the first is 0 and the last is `total`; int64, shape [workers + 1].
        total: At least `workers`.

    Returns:
        Strictly increasing boundaries from 0 to `total`. Where one was moved, what lies between it and its
        neighbour on the side it was moved from is a single unit.
    """
    steps = np.arange(len(boundaries), dtype=np.int64)
    spread = np.maximum.accumulate(boundaries - steps) + steps
    return np.minimum(spread, total - steps[::-1])


def cut_at(strategy: str, fragment_rows: Int64Array, boundaries: Int64Array) -> ShardPlan:
    """Return the plan in which worker `w` reads the global rows `boundaries[w]` to `boundaries[w + 1]`.

    Fragments that a boundary falls into are divided; fragments without rows are in no slice.

    Args:
        strategy: Name of the strategy.
        fragment_rows: Rows of each fragment, in global row order; int64, shape [fragments].
        boundaries: Sorted global row numbers from 0 to the number of rows; int64, shape [workers + 1].

    Raises:
        PlanError: The boundaries do not run from the first row to the last.
    """
    ends = np.cumsum(fragment_rows)
    first_rows = ends - fragment_rows
    total = int(ends[-1]) if len(ends) else 0
    starts = np.union1d(first_rows[fragment_rows > 0], boundaries)
    starts = starts[starts < total]
    stops = np.append(starts[1:], total)[: len(starts)]
    # To the right of equal ends: a fragment without rows ends where the one before it does.
    owner = np.searchsorted(ends, starts, side="right")
    return ShardPlan(
        strategy=strategy,
        fragment_rows=fragment_rows,
        worker_offsets=np.searchsorted(starts, boundaries),
        slice_fragment=owner,
        slice_start=starts - first_rows[owner],
        slice_stop=stops - first_rows[owner],
    )


def refuse_groups(strategy: str, constraints: ShardingConstraints) -> None:
    """Refuse constraints that a strategy which divides between any two rows cannot meet.

    Raises:
        PlanError: There are groups to keep together.
    """
    if constraints.group_index is not None:
        raise PlanError(
            f"dividing rows with strategy {strategy!r}",
            f"{len(constraints.group_index.run_lengths)} groups must stay together, and it divides between any rows",
            "Use the strategy 'groups', or train without a group column.",
        )

"""The strategy `bytes`: contiguous ranges of rows, as much memory for each worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.sharding.cut import Int64Array, at_least_one_apart, count_rows, cut_at, even_boundaries, refuse_groups
from shardfit.source import Fragment


def shard_by_bytes(
    fragments: Sequence[Fragment],
    world: World,
    seed: int = 0,  # noqa: ARG001 - of the contract; nothing is drawn
    constraints: ShardingConstraints | None = None,
) -> ShardPlan:
    """Return a plan of contiguous shards that hold about as many bytes each, for rows of uneven width.

    The rows of a fragment count as equally wide. No shard holds more than its even share of the bytes and the widest
    row on top, as far as the fragments' estimates are true.

    Args:
        fragments: In global row order, which the plan keeps for any number of workers. A fragment of unknown size
            counts as wide as the average of the others; where no size is known, every row counts the same.
        world: The plan has as many workers, or as many as there are rows if those are fewer; at least 1.
        seed: Not used; nothing is drawn.
        constraints: Must not have groups.

    Raises:
        PlanError: There are groups to keep together; the strategy `groups` does that.
    """
    refuse_groups("bytes", constraints or ShardingConstraints())
    rows = count_rows(fragments)
    total = int(rows.sum())
    workers = max(1, min(world.workers, total))
    sizes = _sizes(fragments, rows)
    boundaries = _boundaries(rows, sizes, workers) if total else even_boundaries(0, 1)
    return cut_at("bytes", rows, at_least_one_apart(boundaries, total) if total else boundaries)


def _sizes(fragments: Sequence[Fragment], rows: Int64Array) -> npt.NDArray[np.float64]:
    stated = np.fromiter((fragment.bytes or 0 for fragment in fragments), dtype=np.float64, count=len(fragments))
    known = (stated > 0) & (rows > 0)
    width = stated[known].sum() / rows[known].sum() if known.any() else 1.0
    return np.where(known, stated, rows * width)


def _boundaries(rows: Int64Array, sizes: npt.NDArray[np.float64], workers: int) -> Int64Array:
    """Return the row nearest to each even share of the bytes; sorted; int64, shape [workers + 1]."""
    total = int(rows.sum())
    byte_ends, row_ends = np.cumsum(sizes), np.cumsum(rows)
    targets = byte_ends[-1] * (np.arange(workers + 1) / workers)
    owner = np.minimum(np.searchsorted(byte_ends, targets), len(rows) - 1)
    into = (targets - (byte_ends - sizes)[owner]) / np.where(sizes > 0, sizes, 1.0)[owner]
    inside = np.rint(np.clip(into, 0.0, 1.0) * rows[owner]).astype(np.int64)
    boundaries = (row_ends - rows)[owner] + inside
    boundaries[0], boundaries[-1] = 0, total
    return np.maximum.accumulate(boundaries)

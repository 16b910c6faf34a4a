"""The strategy `groups`: contiguous ranges of whole groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardfit.errors import PlanError
from shardfit.groups import GroupIndex
from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.sharding.cut import Int64Array, at_least_one_apart, count_rows, cut_at, even_boundaries
from shardfit.source import Fragment


def shard_by_groups(
    fragments: Sequence[Fragment],
    world: World,
    seed: int = 0,  # noqa: ARG001 - of the contract; nothing is drawn
    constraints: ShardingConstraints | None = None,
) -> ShardPlan:
    """Return a plan of contiguous shards that hold whole groups, cut at the group nearest to an even share of rows.

    No shard holds more rows than an even share and the largest group on top.

    Args:
        fragments: In global row order, which the plan keeps for any number of workers.
        world: The plan has as many workers, or as many as there are groups if those are fewer; at least 1.
        seed: Not used; nothing is drawn.
        constraints: Has the groups, whose rows add up to those of the fragments.

    Raises:
        PlanError: There is no group index, or it is one of other data.
    """
    rows = count_rows(fragments)
    total = int(rows.sum())
    groups = _check_groups((constraints or ShardingConstraints()).group_index, total)
    edges = groups.boundaries
    workers = max(1, min(world.workers, len(groups.run_lengths)))
    nearest = _nearest(edges, even_boundaries(total, workers))
    if total:
        nearest = at_least_one_apart(nearest, len(groups.run_lengths))
    return cut_at("groups", rows, edges[nearest])


def _check_groups(groups: GroupIndex | None, total: int) -> GroupIndex:
    if groups is None:
        raise PlanError(
            "dividing rows with strategy 'groups'",
            "the constraints have no group index",
            "Name the group column, or use the strategy 'rows'.",
        )
    counted = int(groups.run_lengths.sum())
    if counted != total:
        raise PlanError(
            "dividing rows with strategy 'groups'",
            f"the groups have {counted} rows and the fragments {total}",
            "Pass the group index of the same fragments.",
        )
    return groups


def _nearest(edges: Int64Array, targets: Int64Array) -> Int64Array:
    """Return the position in `edges` of the value nearest to each target; the lower of two as near."""
    above = np.clip(np.searchsorted(edges, targets), 1, len(edges) - 1) if len(edges) > 1 else np.zeros_like(targets)
    below = np.maximum(above - 1, 0)
    return np.where(edges[above] - targets < targets - edges[below], above, below).astype(np.int64)

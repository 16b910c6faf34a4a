"""The strategy `rows`: contiguous ranges of rows, as many for each worker."""

from __future__ import annotations

from collections.abc import Sequence

from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.sharding.cut import count_rows, cut_at, even_boundaries, refuse_groups
from shardfit.source import Fragment


def shard_by_rows(
    fragments: Sequence[Fragment],
    world: World,
    seed: int = 0,  # noqa: ARG001 - of the contract; nothing is drawn
    constraints: ShardingConstraints | None = None,
) -> ShardPlan:
    """Return a plan of contiguous shards whose rows differ by at most one.

    Args:
        fragments: In global row order, which the plan keeps for any number of workers.
        world: The plan has as many workers, or as many as there are rows if those are fewer; at least 1.
        seed: Not used; nothing is drawn.
        constraints: Must not have groups.

    Raises:
        PlanError: There are groups to keep together; the strategy `groups` does that.
    """
    refuse_groups("rows", constraints or ShardingConstraints())
    rows = count_rows(fragments)
    total = int(rows.sum())
    workers = max(1, min(world.workers, total))
    return cut_at("rows", rows, even_boundaries(total, workers))

"""Hypothesis strategies for the values that plugins divide, order and place. Needs `hypothesis`.

Example:
    ```python
    @given(fragment_lists(), worlds())
    def test_each_row_is_planned_once(fragments, world):
        plan = my_strategy(fragments, world, 0, ShardingConstraints())
        assert plan.worker_rows.sum() == sum(fragment.rows for fragment in fragments)
    ```
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from shardfit.groups import GroupIndex
from shardfit.scaling import ClusterResources, Node, ScalingRequest
from shardfit.shard_plan import World
from shardfit.source import Fragment

LARGEST_FRAGMENT = 10**9


@st.composite
def fragments(draw: st.DrawFn, uri: str = "memory:0", index: int = 0, max_rows: int = LARGEST_FRAGMENT) -> Fragment:
    """Draw one fragment, often small, sometimes without rows, sometimes of unknown size.

    Args:
        draw: Given by Hypothesis.
        uri: Its address.
        index: Its position within `uri`.
        max_rows: Most rows; the fewest are 0.
    """
    rows = draw(st.one_of(st.integers(0, min(5, max_rows)), st.integers(0, max_rows)))
    width = draw(st.one_of(st.none(), st.integers(1, 4), st.integers(1, 4096)))
    return Fragment(uri, index, rows, None if width is None else rows * width)


@st.composite
def fragment_lists(
    draw: st.DrawFn, max_fragments: int = 200, max_rows: int = LARGEST_FRAGMENT, min_fragments: int = 0
) -> tuple[Fragment, ...]:
    """Draw the fragments of one dataset in global row order: sorted by URI, then index, each place once.

    Args:
        draw: Given by Hypothesis.
        max_fragments: Most fragments.
        max_rows: Most rows of a fragment.
        min_fragments: Fewest fragments.
    """
    count = draw(st.integers(min_fragments, max_fragments))
    per_file = draw(st.integers(1, max(1, max_fragments)))
    # Numbered URIs with zeros in front sort as they count.
    places = [(f"file:///data/{i // per_file:05d}.parquet", i % per_file) for i in range(count)]
    # One draw for all rows: a draw for each fragment would exhaust the generator's buffer at 200 of them.
    rows = draw(st.lists(_row_counts(max_rows), min_size=count, max_size=count))
    widths = draw(st.lists(st.sampled_from([None, 1, 8, 400]), min_size=1, max_size=7))
    listed = []
    for i, (uri, index) in enumerate(places):
        width = widths[i % len(widths)]
        listed.append(Fragment(uri, index, rows[i], None if width is None else rows[i] * width))
    return tuple(listed)


def worlds(max_workers: int = 1000) -> st.SearchStrategy[World]:
    """Return a strategy for 1 to `max_workers` workers, often few."""
    few = st.integers(1, min(8, max_workers))
    return st.one_of(few, st.integers(1, max_workers)).map(World)


@st.composite
def group_runs(draw: st.DrawFn, total: int, max_groups: int = 5000) -> GroupIndex:
    """Draw groups whose rows add up to `total`: one large group, single rows, or anything between.

    Args:
        draw: Given by Hypothesis.
        total: Rows of the dataset, 0 or more.
        max_groups: Most groups; the real number is drawn, and is at most `total`.
    """
    if not total:
        return GroupIndex(np.zeros(0, dtype=np.int64))
    few = st.integers(1, min(10, total))
    count = draw(st.one_of(few, st.integers(1, min(max_groups, total))))
    edges = draw(st.lists(st.integers(1, total), max_size=20))
    # Most edges come from a seed: drawing thousands one by one is slow and shrinks badly.
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    more = generator.integers(1, total, endpoint=True, size=max(0, count - len(edges)))
    ends = np.union1d([*edges, total], more).astype(np.int64)
    return GroupIndex(np.diff(ends, prepend=0))


@st.composite
def clusters(
    draw: st.DrawFn,
    min_nodes: int = 0,
    max_nodes: int = 200,
    engines: tuple[Literal["inline", "ray"], ...] = ("inline", "ray"),
) -> ClusterResources:
    """Draw a cluster: fractional CPUs, nodes with and without GPUs, known and unknown memory.

    Args:
        draw: Given by Hypothesis.
        min_nodes: Fewest nodes of a Ray cluster.
        max_nodes: Most nodes of a Ray cluster. Without a cluster there is one node.
        engines: What to draw the engine from.
    """
    engine = draw(st.sampled_from(engines))
    count = 1 if engine == "inline" else draw(st.integers(min_nodes, max_nodes))
    kinds = draw(st.lists(_node_kinds(), min_size=1, max_size=6))
    picks = draw(st.lists(st.integers(0, len(kinds) - 1), min_size=count, max_size=count))
    nodes = [
        Node(f"node-{i:03d}", f"10.0.{i // 250}.{i % 250 + 1}", **kinds[kind])  # a private network that nothing opens
        for i, kind in enumerate(picks)
    ]
    return ClusterResources(tuple(nodes), engine)


@st.composite
def scaling_requests(
    draw: st.DrawFn,
    workers: st.SearchStrategy[int] | None = None,
    use_gpu: tuple[bool | None, ...] = (None, True, False),
) -> ScalingRequest:
    """Draw what a user may ask for, feasible or not, for small and for large data.

    Args:
        draw: Given by Hypothesis.
        workers: Number of workers; -1, few or many unless given.
        use_gpu: What to draw `use_gpu` from.
    """
    any_number = st.one_of(st.just(-1), st.integers(1, 8), st.integers(1, 2000))
    return ScalingRequest(
        workers=draw(any_number if workers is None else workers),
        cpus_per_worker=draw(st.one_of(st.just(-1), st.integers(1, 8), st.integers(1, 200))),
        use_gpu=draw(st.sampled_from(use_gpu)),
        rows=draw(st.one_of(st.just(0), st.integers(1, 10**6), st.integers(1, 10**12))),
        bytes=draw(st.one_of(st.just(0), st.integers(1, 2**27), st.integers(1, 10**14))),
    )


def _row_counts(max_rows: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, min(3, max_rows)), st.integers(0, max_rows))


@st.composite
def _node_kinds(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "cpus": draw(st.one_of(st.integers(0, 128).map(float), st.integers(0, 1280).map(lambda tenths: tenths / 10))),
        "gpus": float(draw(st.sampled_from([0, 0, 0, 0.5, 1, 2, 8]))),
        "memory": draw(st.sampled_from([0, 2**30, 3 * 2**34 + 1])),
    }

"""The built-in strategies pass the kit that a stranger's must pass."""

from __future__ import annotations

import math
from fractions import Fraction

from shardfit.sharding.bytes import shard_by_bytes
from shardfit.sharding.groups import shard_by_groups
from shardfit.sharding.rows import shard_by_rows
from shardfit.testing import ShardingKit
from shardfit.testing.sharding_kit import Division


class TestRows(ShardingKit):
    strategy = staticmethod(shard_by_rows)

    def most_rows(self, division: Division, workers: int) -> int:
        return math.ceil(division.rows / workers)


class TestBytes(ShardingKit):
    strategy = staticmethod(shard_by_bytes)

    def most_rows(self, division: Division, workers: int) -> int:
        # What it bounds is bytes, which tests/shardfit/test_sharding.py compares: rows may be as narrow as they like.
        return division.rows


class TestGroups(ShardingKit):
    strategy = staticmethod(shard_by_groups)
    keeps_groups = True

    def most_rows(self, division: Division, workers: int) -> Fraction:
        groups = division.constraints.group_index
        largest = int(groups.run_lengths.max(initial=0)) if groups is not None else 0
        return Fraction(division.rows, workers) + largest

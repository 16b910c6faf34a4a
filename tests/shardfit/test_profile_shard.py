"""The profile pass of one shard, as a worker makes it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from shardfit.binned_trainer import BinnedTrainer
from shardfit.casts import plan_casts
from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidValueError
from shardfit.profile import Profile, SampleSpec
from shardfit.profile.shard import ProfileRequest, profile_shard
from shardfit.shard_plan import World
from shardfit.shard_reader import ShardReader
from shardfit.sharding.rows import shard_by_rows
from shardfit.sources.arrow import ArrowSource

NAN = float("nan")
ROLES = ColumnRoles(("x", "kind", "whole"), ("y",), categorical=("kind",))
TABLE = pa.table(
    {
        # Without nulls: a view of Arrow's memory, which must not be written to.
        "x": pa.array([1.0, -0.0, 0.0, -999.0, 2.0], pa.float32()),
        "kind": ["0", "-999", "a", "a", "b"],
        "whole": pa.array([-999, 2**24 + 1, 0, None, 7], pa.int64()),
        "y": [1.0, 0.0, 1.0, 0.0, 1.0],
    }
)


def profile_of(missing: float, table: pa.Table = TABLE) -> Profile:
    """Return the profile of a table, read in batches of two rows."""
    source = ArrowSource(table)
    fragments = source.fragments()
    (shard,) = shard_by_rows(fragments, World(1)).shards(fragments)
    casts = plan_casts(table.schema, ROLES.all, ROLES.categorical)
    request = ProfileRequest(ROLES, casts, missing, 0, {"train": SampleSpec(0, 1.0)})
    reader = ShardReader("train", source, shard, ROLES.all, 2)
    # Nothing is asked of the trainer where no terms are summed.
    return profile_shard(reader, cast(BinnedTrainer, None), None, request, with_terms=False)


@pytest.mark.parametrize(
    ("missing", "x", "whole"),
    [
        (NAN, [1.0, 0.0, 0.0, -999.0, 2.0], [-999.0, 2**24, 0.0, NAN, 7.0]),
        (-999.0, [1.0, 0.0, 0.0, NAN, 2.0], [NAN, 2**24, 0.0, NAN, 7.0]),
        (0.0, [1.0, NAN, NAN, -999.0, 2.0], [-999.0, 2**24, NAN, NAN, 7.0]),
        (-0.0, [1.0, NAN, NAN, -999.0, 2.0], [-999.0, 2**24, NAN, NAN, 7.0]),
    ],
)
def test_a_value_that_stands_for_missing_is_none_of_the_values(
    missing: float, x: list[float], whole: list[float]
) -> None:
    before = TABLE.column("x").to_pylist()
    profile = profile_of(missing)
    columns: list[Any] = [np.array(x, dtype=np.float32), np.full(5, np.nan), np.array(whole, dtype=np.float32)]
    np.testing.assert_array_equal(profile.sample, np.column_stack(columns))
    assert profile.missing.tolist() == [int(np.isnan(column).sum()) for column in columns]
    assert profile.minimum[[0, 2]].tolist() == [np.nanmin(columns[0]), np.nanmin(columns[2])]
    assert profile.maximum[[0, 2]].tolist() == [np.nanmax(columns[0]), np.nanmax(columns[2])]
    assert profile.beyond_float32.tolist() == [0, 0, 1]
    assert profile.categories == {"kind": frozenset({"0", "-999", "a", "b"})}
    for j in (0, 2):
        assert sorted(profile.distinct[j].values.tolist()) == sorted(set(columns[j][~np.isnan(columns[j])].tolist()))
    assert TABLE.column("x").to_pylist() == before


@pytest.mark.parametrize(("missing", "row"), [(NAN, 1), (float("inf"), 3), (float("-inf"), 1)])
def test_the_first_infinite_value_that_is_not_missing_is_named(missing: float, row: int) -> None:
    x = pa.array([1.0, float("inf"), float("inf"), float("-inf"), 2.0], pa.float32())
    with pytest.raises(InvalidValueError, match=f"an infinite value in row {row} "):
        profile_of(missing, TABLE.set_column(0, "x", x))

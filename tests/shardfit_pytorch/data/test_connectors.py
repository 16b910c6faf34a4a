"""A sharded connector outside a run, and a rank's shard as a connector."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit import DataConnector, ShardedDataConnector, default_registry
from shardfit.errors import InvalidArgumentError, UnknownColumnError
from shardfit_pytorch.data import BoundShardedConnector, ShardConnector
from tests.shardfit_pytorch.data.tables import numbered

TABLE = pa.table({"row": np.arange(10), "name": [f"n{index}" for index in range(10)]})


def bind(connector: ShardedDataConnector, rank: int, world_size: int) -> ShardConnector:
    source = connector.connector.resolve(default_registry())
    bound = BoundShardedConnector(
        "train", source, source.fragments(), source.schema(), rank, world_size, equal=connector.equal
    )
    return bound.get_shard()


def test_a_connector_outside_a_run_says_how_to_be_inside_one() -> None:
    with pytest.raises(InvalidArgumentError, match=r"dataset_map=.*get_context\(\)"):
        ShardedDataConnector.from_dataframe(TABLE).get_shard()


def test_every_way_to_make_one_gives_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    connectors = [
        ShardedDataConnector.from_parquet(tmp_path / "t.parquet"),
        ShardedDataConnector.from_dataset(ds.dataset(tmp_path / "t.parquet")),
        ShardedDataConnector.from_dataframe(TABLE.to_pandas()),
        ShardedDataConnector.of(TABLE),
        ShardedDataConnector.of(DataConnector.from_arrow(TABLE)),
    ]
    for connector in connectors:
        copied = pickle.loads(pickle.dumps(connector))
        parts = [bind(copied, rank, 3).to_pandas() for rank in range(3)]
        assert [len(part) for part in parts] == [4, 3, 3]
        assert pd.concat(parts)["name"].tolist() == TABLE["name"].to_pylist()
    assert ShardedDataConnector.of(connectors[0]) is connectors[0]


def test_a_connector_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ShardedDataConnector.of(TABLE).equal = True  # type: ignore[misc]


def test_equal_shards_leave_the_last_rows_out() -> None:
    connector = ShardedDataConnector.from_dataframe(TABLE, equal=True)
    parts = [bind(connector, rank, 4).to_arrow()["row"].to_pylist() for rank in range(4)]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(1, 5))
def test_shards_are_every_row_once(sizes: list[int], world_size: int) -> None:
    source = numbered(sizes)
    shards = [
        BoundShardedConnector("t", source, source.fragments(), source.schema(), rank, world_size).get_shard()
        for rank in range(world_size)
    ]
    rows = [row for shard in shards for row in shard.to_arrow()["row"].to_pylist()]
    assert rows == list(range(sum(sizes)))
    counts = [shard.count_rows() for shard in shards]
    assert sum(counts) == sum(sizes)
    assert max(counts) - min(counts) <= 1


def test_a_shard_is_a_connector() -> None:
    shard = bind(ShardedDataConnector.of(TABLE), 1, 2)
    assert isinstance(shard, DataConnector)
    assert shard.schema() == TABLE.schema
    assert [batch.num_rows for batch in shard.to_batches(["name"], batch_rows=2)] == [2, 2, 1]
    assert shard.to_arrow(limit=2)["row"].to_pylist() == [5, 6]
    assert "rank 1 of 2" in repr(shard)
    with pytest.raises(UnknownColumnError):
        next(shard.to_batches(["nmae"]))
    assert sorted(DataConnector.of(shard).to_torch_dataset(columns=["row"]).state().to_json()) == sorted(
        ["epoch", "steps", "rows", "order", "deals"]
    )


@pytest.mark.parametrize("seed", ["a", None, 1.5])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="seed of a shuffle"):
        bind(ShardedDataConnector.of(TABLE), 0, 1).to_torch_dataset(shuffle=True, seed=seed, columns=["row"])


def test_only_a_shard_makes_tensors_of_a_rank() -> None:
    with pytest.raises(InvalidArgumentError, match=r"Use get_shard\(\)"):
        ShardConnector(TABLE).to_torch_dataset()

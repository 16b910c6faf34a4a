"""A source and a sharding strategy that a program registers itself. Run it: python -m examples.source_and_strategy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from shardfit import Claim, ColumnRoles, DataSource, Fragment, Job, Registry, ShardPlan, World, hookimpl, train
from shardfit.shard_plan import ShardingConstraints

SCHEMA = pa.schema({"x": pa.float64(), "y": pa.float64()})


class Waves(DataSource):
    def __init__(self, count: int) -> None:
        self._count = count

    def schema(self) -> pa.Schema:
        return SCHEMA

    def fragments(self) -> Sequence[Fragment]:
        return [Fragment("waves", index, 1000) for index in range(self._count)]

    def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Iterator[Any]:
        for first in range(start, stop, batch_rows):
            x = (np.arange(first, min(first + batch_rows, stop)) + 1000 * fragment.index) / 100
            yield pa.record_batch({"x": x, "y": np.sin(x)}, schema=SCHEMA).select(list(columns))

    def describe(self) -> str:
        return f"{self._count} waves"


class WavesOpener:  # `waves:5` is five fragments of 1,000 rows that are computed when they are read
    def claims(self, data: object) -> Claim | None:
        return Claim(10) if str(data).startswith("waves:") else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        return Waves(int(str(data).removeprefix("waves:")))


def deal(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
    worker = np.arange(len(fragments)) % world.workers  # whole fragments, to each worker in turn
    order, rows = np.argsort(worker, kind="stable"), np.array([fragment.rows for fragment in fragments])
    return ShardPlan("deal", rows, np.append(0, np.bincount(worker).cumsum()), order, 0 * order, rows[order])


class Plugin:
    shardfit_sources = hookimpl(lambda self: {"waves": WavesOpener()})
    shardfit_sharding_strategies = hookimpl(lambda self: {"deal": deal})


if __name__ == "__main__":
    registry = Registry()
    registry.discover()
    registry.register(Plugin())
    job = {"trainer": "xgboost", "data": "waves:5", "columns": ColumnRoles(label=("y",)), "sharding": "deal"}
    print(train(Job.model_validate(job), registry=registry).coverage["train"].handed.rows, "rows")

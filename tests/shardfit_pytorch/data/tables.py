"""Tables of uneven fragments, and ranks that read them in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from shardfit.coverage import RowDigest
from shardfit.source import DataSource, Fragment
from shardfit_pytorch.data import BoundShardedConnector, ConsumedStep, ShardfitDataset


class UnevenSource(DataSource):
    """A table in memory whose fragments have the sizes given; counts what is read of each."""

    def __init__(self, table: pa.Table, sizes: Sequence[int]) -> None:
        assert sum(sizes) == table.num_rows
        self.table, self.sizes = table, tuple(sizes)
        self.reads: list[int] = []

    def schema(self) -> pa.Schema:
        return self.table.schema

    def fragments(self) -> Sequence[Fragment]:
        return tuple(Fragment("memory:0", index, rows) for index, rows in enumerate(self.sizes))

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self.reads.append(fragment.index)
        first = sum(self.sizes[: fragment.index]) + start
        rows = self.table.select(list(columns)).slice(first, stop - start).combine_chunks()
        yield from rows.to_batches(max_chunksize=min(batch_rows, 7))

    def describe(self) -> str:
        return "uneven fragments"


@dataclass
class Recorder:
    """A tracker that keeps what it is told."""

    steps: list[ConsumedStep] = field(default_factory=list)
    datasets: list[ShardfitDataset] = field(default_factory=list)

    def attach(self, dataset: ShardfitDataset) -> None:
        self.datasets.append(dataset)

    def consumed(self, step: ConsumedStep) -> None:
        self.steps.append(step)

    @property
    def digest(self) -> RowDigest:
        return RowDigest.total(step.digest for step in self.steps)


def numbered(sizes: Sequence[int]) -> UnevenSource:
    """A source whose column `row` is the global row number, beside one of floats."""
    rows = sum(sizes)
    return UnevenSource(pa.table({"row": np.arange(rows), "half": np.arange(rows, dtype=np.float32) / 2}), sizes)


def rank_of(
    source: DataSource, rank: int = 0, world_size: int = 1, *, tracker: Any = None, equal: bool = False, **options: Any
) -> ShardfitDataset:
    """The dataset of one rank."""
    bound = BoundShardedConnector(
        "train", source, source.fragments(), source.schema(), rank, world_size, equal=equal, tracker=tracker
    )
    return bound.get_shard().to_torch_dataset(**options)


def ranks_of(source: DataSource, world_size: int, **options: Any) -> list[ShardfitDataset]:
    """The datasets of all ranks."""
    return [rank_of(source, rank, world_size, **options) for rank in range(world_size)]


def rows_of(batches: Any) -> list[list[int]]:
    """The row numbers of each batch."""
    return [batch["row"].flatten().tolist() for batch in batches]


def global_batches(per_rank: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """The rows of each step over all ranks, which take the same number of steps."""
    return [[row for rows in step for row in rows] for step in zip(*per_rank, strict=True)]


def flat(batches: Any) -> list[int]:
    """All rows of nested lists."""
    return [row for rows in batches for row in rows]

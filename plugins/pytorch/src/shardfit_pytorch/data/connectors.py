"""What a rank holds of a table: its rows as a connector, and the way from there to tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from shardfit.connector import DataConnector, SourceRegistry
from shardfit.errors import InvalidArgumentError
from shardfit.registry import default_registry
from shardfit.shard_plan import FragmentSlice
from shardfit.source import DataSource, Fragment
from shardfit_pytorch.data.columns import Categories, TensorColumns
from shardfit_pytorch.data.deal_rules import DealRules
from shardfit_pytorch.data.dealing import share
from shardfit_pytorch.data.order import RowOrder
from shardfit_pytorch.data.torch_dataset import RankTable, ShardfitDataset
from shardfit_pytorch.data.tracker import Tracker


@dataclass(frozen=True, eq=False)
class BoundShardedConnector:
    """A sharded connector inside a run: it knows the rank.

    Args:
        name: Of the dataset in the run's map.
        source: Where the rows are.
        fragments: All of the table, in global row order.
        schema: All columns of the table.
        rank: Of this process.
        world_size: Number of ranks.
        seed: Of the run; shuffles depend on it and on the seed of the dataset.
        equal: As of `ShardedDataConnector`.
        tracker: Told what the loop consumes, or None.
    """

    name: str
    source: DataSource
    fragments: Sequence[Fragment]
    schema: pa.Schema
    rank: int = 0
    world_size: int = 1
    seed: int = 0
    equal: bool = False
    tracker: Tracker | None = None

    def get_shard(self) -> ShardConnector:
        """Return this rank's rows: one contiguous range of the table, as long as any other rank's or shorter by one."""
        table = RankTable(self.name, self.source, self.fragments, self.schema, self.rank, self.world_size, self.tracker)
        return ShardConnector(ShardSource(table, self.equal, self.seed))


class ShardSource(DataSource):
    """The rows of one rank, as a source of its own.

    Args:
        table: The whole table, and the rank.
        equal: Whether all ranks have as many rows.
        seed: Of the run.
    """

    def __init__(self, table: RankTable, equal: bool, seed: int) -> None:
        self.table, self.equal, self.seed = table, equal, seed
        total = sum(fragment.rows for fragment in table.fragments)
        dealt = total - total % table.world_size if equal else total
        self._slices = tuple(_slices(table.fragments, *share(dealt, table.world_size, table.rank)))

    def schema(self) -> pa.Schema:
        """Return the columns of the table."""
        return self.table.schema

    def fragments(self) -> Sequence[Fragment]:
        """Return this rank's part of each fragment that it has rows of."""
        return tuple(
            replace(piece.fragment, uri=f"{piece.fragment.uri}#rank", index=index, rows=piece.rows)
            for index, piece in enumerate(self._slices)
        )

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of this rank's part of a fragment."""
        piece = self._slices[fragment.index]
        return self.table.source.read(piece.fragment, columns, piece.start + start, piece.start + stop, batch_rows)

    def describe(self) -> str:
        """Return the rank and the table."""
        return f"rank {self.table.rank} of {self.table.world_size} of {self.table.source.describe()}"

    def in_memory(self) -> bool:
        """Return what the table's source says."""
        return self.table.source.in_memory()


class ShardConnector(DataConnector):
    """This rank's rows: a connector like any other, made by `get_shard`."""

    def to_torch_dataset(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        drop_last_batch: bool = False,
        seed: int = 0,
        global_batch_size: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        categories: Categories | None = None,
        registry: Any = None,
        **options: Any,
    ) -> ShardfitDataset:
        """Return an iterable dataset of dicts, column -> tensor of the rows of one batch of this rank.

        Every rank takes the same number of steps; in each, ranks differ by at most one row and none has none.

        Args:
            batch_size: Rows of a batch of each rank; None means 1024 unless there is a `global_batch_size`.
            shuffle: Whether each epoch has another order of the rows.
            drop_last_batch: Whether rows that do not fill the last step are left out.
            seed: Of the shuffle.
            global_batch_size: Rows of a step over all ranks, at least twice as many as there are ranks. The rows of a
                step are then the same however many ranks there are. Every rank decodes the whole table.
            columns: Which columns, in this order; None means all.
            categories: Column -> its categories, for columns that hold text, or numbers that stand for something.
            registry: Not used: the rows were found when the run began.
            **options: There are no others.

        Raises:
            InvalidArgumentError: A size is none, or leaves a rank without rows.
            UnknownColumnError: A column does not exist.
            UnsupportedTypeError: A column has no tensor.
            EmptyDataError: There are no rows, or all would be left out.
        """
        if options:
            raise InvalidArgumentError(
                "making tensors of a shard", f"found options {options!r}", "It has none of these."
            )
        source = self.data
        if not isinstance(source, ShardSource):
            raise InvalidArgumentError("making tensors of a shard", f"found {source!r:.100}", "Use get_shard().")
        rules = DealRules(batch_size, global_batch_size, drop_last_batch, source.equal)
        seeds = (source.seed, _checked_seed(seed)) if shuffle else None
        order = RowOrder(source.table.fragments, source.table.schema, seeds)
        return ShardfitDataset(source.table, order, rules, TensorColumns(source.table.schema, columns, categories))


def to_torch_dataset(
    connector: DataConnector,
    batch_size: int | None = None,
    shuffle: bool = False,
    drop_last_batch: bool = False,
    seed: int = 0,
    *,
    registry: SourceRegistry | None = None,
    **options: Any,
) -> ShardfitDataset:
    """Return all rows of a connector as a dataset of one rank; the exporter called `torch`.

    Args:
        connector: Whose rows.
        batch_size: As for `ShardConnector.to_torch_dataset`, like all that follows.
        shuffle: As there.
        drop_last_batch: As there.
        seed: As there.
        registry: Where to look sources up; None means the default one.
        **options: `global_batch_size`, `columns` and `categories`, as there.
    """
    if isinstance(connector, ShardConnector):
        shard = connector
    else:
        source = connector.resolve(default_registry() if registry is None else registry)
        shard = BoundShardedConnector("data", source, source.fragments(), source.schema()).get_shard()
    return shard.to_torch_dataset(batch_size, shuffle, drop_last_batch, seed, **options)


def _checked_seed(seed: Any) -> int:
    if not isinstance(seed, int):
        raise InvalidArgumentError("reading the seed of a shuffle", f"found {seed!r}", "It is a whole number.")
    return seed


def _slices(fragments: Sequence[Fragment], start: int, stop: int) -> Iterator[FragmentSlice]:
    first = 0
    for index, fragment in enumerate(fragments):
        begin, end = max(start, first), min(stop, first + fragment.rows)
        if begin < end:
            yield FragmentSlice(fragment, index, begin - first, end - first, begin)
        first += fragment.rows

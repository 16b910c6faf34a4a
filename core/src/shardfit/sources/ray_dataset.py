"""Rows of a Ray dataset: read from the object store by the workers, a block at a time; and the way back.

Ray is met only through functions of `shardfit.engines.ray`, and only when a dataset is there to be read or made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from shardfit.connector import BATCH_ROWS, DataConnector, SourceRegistry
from shardfit.errors import InvalidArgumentError, SchemaMismatchError
from shardfit.source import Claim, DataSource, Fragment


class DatasetBlock(NamedTuple):
    """Some rows of a Ray dataset, in the object store.

    Args:
        reference: Ray's reference to the block that holds them.
        start: Number of the first one within the block.
        rows: How many.
        bytes: Approximate size of the block in memory.
    """

    reference: Any
    start: int
    rows: int
    bytes: int


class RayDatasetOpener:
    """Opens a materialised `ray.data.Dataset`."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on any dataset of Ray's, lazy ones included: they get an error that says what to do."""
        kinds = [kind for kind in type(data).__mro__ if kind.__module__.startswith("ray.data")]
        is_dataset = any(kind.__name__ == "Dataset" for kind in kinds)
        return Claim(10, "a Ray dataset") if is_dataset else None

    def open(self, data: object, options: Mapping[str, Any]) -> RayDatasetSource:
        """Return the source for `data`.

        Raises:
            DataError: The dataset is lazy.
            SchemaMismatchError: Two blocks disagree about a column.
            InvalidArgumentError: There are options.
        """
        if options:
            raise InvalidArgumentError("reading a Ray dataset", f"found options {dict(options)!r}", "It takes none.")
        from shardfit.engines.ray import dataset_blocks

        found, schema = dataset_blocks(data)
        blocks = tuple(DatasetBlock(*block) for block in found)
        return RayDatasetSource(blocks, _common_schema(blocks) if schema is None else schema)


@dataclass(frozen=True, slots=True)
class RayDatasetSource(DataSource):
    """The blocks of a Ray dataset, one fragment each, in the order that the dataset has them.

    Args:
        blocks: References into the object store; keeping them keeps the rows there.
        columns: Columns of every block.
    """

    blocks: tuple[DatasetBlock, ...]
    columns: pa.Schema

    def schema(self) -> pa.Schema:
        """Return the columns that all blocks have."""
        return self.columns

    def fragments(self) -> Sequence[Fragment]:
        """Return one fragment a block."""
        return [Fragment("ray:dataset", index, block.rows, block.bytes) for index, block in enumerate(self.blocks)]

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of one block; see `DataSource.read`.

        Raises:
            SchemaMismatchError: The block cannot be turned into the columns of the dataset.
            UnreadableSourceError: The object store has lost the block.
        """
        from shardfit.engines.ray import fetch

        block = self.blocks[fragment.index]
        table = _as_table(fetch(block.reference)).slice(block.start + start, stop - start).select(list(columns))
        wanted = pa.schema([self.columns.field(name) for name in columns])
        try:
            yield from table.cast(wanted).to_batches(max_chunksize=batch_rows)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise SchemaMismatchError(f"reading {fragment}", str(error), "Give every block the same types.") from error

    def describe(self) -> str:
        """Return the number of blocks and rows."""
        return f"Ray dataset of {sum(block.rows for block in self.blocks)} rows in {len(self.blocks)} blocks"


def to_ray_dataset(connector: DataConnector, registry: SourceRegistry | None = None) -> Any:
    """Return the rows of a connector as a `ray.data.Dataset`, in the same order; the exporter called `ray`.

    Joins the Ray cluster that is there, or starts a local one. Tasks of the cluster read the fragments.

    Args:
        connector: Whose rows.
        registry: Where to look sources up; None means the default one.
    """
    from shardfit.engines.ray import RayEngine, dataset_of_tables, put, submit_tasks
    from shardfit.registry import default_registry

    source = connector.resolve(default_registry() if registry is None else registry)
    RayEngine(os.environ).connect()
    shared = put(source)
    filled = [fragment for fragment in source.fragments() if fragment.rows]
    tables = submit_tasks(_read_fragment, [(shared, fragment) for fragment in filled])
    return dataset_of_tables(tables or [put(source.schema().empty_table())])


def _read_fragment(source: DataSource, fragment: Fragment) -> pa.Table:
    schema = source.schema()
    return pa.Table.from_batches(source.read(fragment, schema.names, 0, fragment.rows, BATCH_ROWS), schema=schema)


def _common_schema(blocks: Sequence[DatasetBlock]) -> pa.Schema:
    from shardfit.engines.ray import fetch, submit_tasks

    # Blocks of pandas frames have no Arrow types until they are converted, which is done where they are.
    schemas = fetch(submit_tasks(_schema_of, [(block.reference,) for block in blocks if block.rows]))
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaMismatchError(
            "reading a Ray dataset", f"its blocks disagree: {error}", "Give every block the same types."
        ) from error


def _schema_of(block: Any) -> pa.Schema:
    return _as_table(block).schema


def _as_table(block: Any) -> pa.Table:
    return block if isinstance(block, pa.Table) else pa.Table.from_pandas(block, preserve_index=False)

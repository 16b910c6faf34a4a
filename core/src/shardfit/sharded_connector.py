"""A table of which every worker of a training loop gets its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from shardfit.connector import DataConnector, Paths
from shardfit.errors import InvalidArgumentError


@dataclass(frozen=True, eq=False)
class ShardedDataConnector:
    """A description of a table whose rows are divided over the ranks of a run.

    Pass it in a `dataset_map`; inside the run, `get_shard()` of what the context gives back is that rank's part. A
    plain `DataConnector` in the map is read in full by every rank. It can be pickled when its data can.

    Args:
        connector: Says where the rows are.
        equal: Whether every rank gets exactly as many rows as every other. Up to world size - 1 rows are then left out
            of an epoch, and the dataset says how many. False deals every row; ranks differ by at most one a step.
    """

    connector: DataConnector
    equal: bool = False

    @classmethod
    def of(cls, obj: object, *, equal: bool = False) -> ShardedDataConnector:
        """Return `obj` if it is a sharded connector, else one for it; `obj` is whatever `DataConnector.of` accepts."""
        return obj if isinstance(obj, ShardedDataConnector) else cls(DataConnector.of(obj), equal)

    @classmethod
    def from_parquet(
        cls,
        path: Paths,
        *,
        storage_options: Mapping[str, Any] | None = None,
        filesystem: Any = None,
        equal: bool = False,
    ) -> ShardedDataConnector:
        """Return a sharded connector for Parquet files; arguments as for `DataConnector.from_parquet`."""
        connector = DataConnector.from_parquet(path, storage_options=storage_options, filesystem=filesystem)
        return cls(connector, equal)

    @classmethod
    def from_dataset(cls, dataset: Any, *, equal: bool = False) -> ShardedDataConnector:
        """Return a sharded connector for a `pyarrow.dataset.Dataset`."""
        return cls(DataConnector.from_dataset(dataset), equal)

    @classmethod
    def from_dataframe(cls, obj: object, *, equal: bool = False) -> ShardedDataConnector:
        """Return a sharded connector for a pandas or polars DataFrame, or whatever has an `__arrow_c_stream__`."""
        return cls(DataConnector.from_dataframe(obj), equal)

    @classmethod
    def from_ray_dataset(cls, dataset: Any, *, equal: bool = False) -> ShardedDataConnector:
        """Return a sharded connector for a materialised `ray.data.Dataset`."""
        return cls(DataConnector.from_ray_dataset(dataset), equal)

    def get_shard(self) -> NoReturn:
        """Refuse: only what a run hands to a rank knows which rows are its own.

        Raises:
            InvalidArgumentError: Always; says how to be inside a run.
        """
        raise InvalidArgumentError(
            "taking this rank's shard of a ShardedDataConnector",
            "there is no rank here: this is the connector that the program made, outside a run",
            "Pass it as dataset_map={'train': connector} to the distributor's run(), and inside the training function "
            "call get_context().get_dataset_map()['train'].get_shard(). For all rows, use its .connector.",
        )

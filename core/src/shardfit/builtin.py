"""What the core itself provides, through the same hooks as any plugin. Slow imports wait until a registry asks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from shardfit.artifacts import ArtifactStoreOpener
from shardfit.hookspecs import Exporter, hookimpl
from shardfit.scaling import ScalingPolicy
from shardfit.shard_plan import ShardingStrategy
from shardfit.source import Claim, DataSource, SourceOpener


@hookimpl
def shardfit_sources() -> Mapping[str, SourceOpener]:
    """Return the sources for files, in-memory tables and Ray datasets."""
    from shardfit.sources.arrow import ArrowOpener
    from shardfit.sources.concat import ConcatOpener
    from shardfit.sources.csv_files import CsvOpener
    from shardfit.sources.dataframe import DataFrameOpener
    from shardfit.sources.parquet import ParquetOpener
    from shardfit.sources.ray_dataset import RayDatasetOpener
    from shardfit.sources.svmlight_files import SvmlightOpener

    return {
        "arrow": ArrowOpener(),
        "concat": ConcatOpener(),
        "csv": CsvOpener(),
        "dataframe": DataFrameOpener(),
        "dataset": _LazyDatasetOpener(),
        "parquet": ParquetOpener(),
        "ray": RayDatasetOpener(),
        "svmlight": SvmlightOpener(),
    }


@hookimpl
def shardfit_sharding_strategies() -> Mapping[str, ShardingStrategy]:
    """Return the strategies that divide by rows, by bytes and by whole groups."""
    from shardfit.sharding.bytes import shard_by_bytes
    from shardfit.sharding.groups import shard_by_groups
    from shardfit.sharding.rows import shard_by_rows

    return {"bytes": shard_by_bytes, "groups": shard_by_groups, "rows": shard_by_rows}


@hookimpl
def shardfit_scaling_policies() -> Mapping[str, ScalingPolicy]:
    """Return the policy that takes all the workers that are useful."""
    from shardfit.default_scaling import DefaultScalingPolicy

    return {"default": DefaultScalingPolicy()}


@hookimpl
def shardfit_artifact_stores() -> Mapping[str, ArtifactStoreOpener]:
    """Return the store in a folder of this machine."""
    from shardfit.stores.local import LocalStoreOpener

    return {"local": LocalStoreOpener()}


@hookimpl
def shardfit_exporters() -> Mapping[str, Exporter]:
    """Return the exporter to a Ray dataset."""
    from shardfit.sources.ray_dataset import to_ray_dataset

    return {"ray": to_ray_dataset}


class _LazyDatasetOpener:
    # Importing pyarrow.dataset imports pandas; where nobody imported it, nothing can be a dataset.
    def claims(self, data: object) -> Claim | None:
        return self._opener().claims(data) if "pyarrow.dataset" in sys.modules else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        return self._opener().open(data, options)

    def _opener(self) -> SourceOpener:
        from shardfit.sources.dataset import DatasetOpener

        return DatasetOpener()

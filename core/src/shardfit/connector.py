"""The user's handle on a table: says where the rows are, and reads nothing until asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import pyarrow as pa

from shardfit.columns import check_column
from shardfit.errors import InvalidArgumentError
from shardfit.redaction import redact_options, redact_url
from shardfit.source import DataSource

if TYPE_CHECKING:
    import pandas as pd

Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"
BATCH_ROWS = 65_536
STAGE = "stage"
"""Name of the source that opens files in stages, of the distribution shardfit-stages."""


class SourceRegistry(Protocol):
    """What a connector needs of a registry: `shardfit.registry.Registry` is one."""

    def names(self, kind: Literal["sources"]) -> tuple[str, ...]:
        """Return the names of the sources."""

    def open_source(self, data: object, options: Mapping[str, Any], name: str | None = None) -> DataSource:
        """Return the source of the opener called `name`, or of the one with the highest claim on `data`."""


@dataclass(frozen=True, eq=False, repr=False)
class DataConnector:
    """A description of a table, resolved with the registry of the run that reads it.

    Make one with a `from_...` method or `of`. A connector holds no open file and no registry; it can be pickled when
    its data can.

    Args:
        data: A path, a list of paths, a table, a dataset, or any object that an installed source claims.
        source: Name of the source to open it with; None lets the sources claim it.
        options: Plain values for the source.
    """

    data: object
    source: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, obj: object) -> DataConnector:
        """Return `obj` if it is a connector, else a connector for it.

        Args:
            obj: A connector, a source, a path, glob or URL, a list of them, or what any installed source claims: a
                pandas or polars DataFrame, a DuckDB relation, an Arrow table, a dataset.
        """
        if isinstance(obj, DataConnector):
            return obj
        if isinstance(obj, str | os.PathLike):
            return cls(os.fspath(obj))
        if isinstance(obj, pa.RecordBatchReader):
            return cls.from_dataframe(obj)
        return cls(obj)

    @classmethod
    def from_parquet(
        cls, path: Paths, *, storage_options: Mapping[str, Any] | None = None, filesystem: Any = None
    ) -> DataConnector:
        """Return a connector for Parquet files.

        Args:
            path: A file, a folder (read recursively; names that start with `.` or `_` are skipped), a glob (`**`
                crosses folders), a URL (`s3://`, `gs://`, `abfss://`, `hdfs://`, `file://`), `@DB.SCHEMA.STAGE/path`
                in a stage, or a list of them. A file that is named twice is an error.
            storage_options: Arguments of the `pyarrow.fs` file system of the URL, such as `{"region": "eu-west-1"}`.
            filesystem: A `pyarrow.fs.FileSystem` to read from instead; `path` is then a path within it.
        """
        return cls(_plain_paths(path), "parquet", _storage(storage_options, filesystem))

    @classmethod
    def from_csv(
        cls, path: Paths, *, storage_options: Mapping[str, Any] | None = None, filesystem: Any = None, **options: Any
    ) -> DataConnector:
        """Return a connector for CSV files.

        Args:
            path: As for `from_parquet`.
            storage_options: As for `from_parquet`.
            filesystem: As for `from_parquet`.
            **options: As listed in `shardfit.sources.csv_options.CsvOptions`: `delimiter`, `column_names`,
                `column_types`, `null_values` and others.
        """
        return cls(_plain_paths(path), "csv", {**options, **_storage(storage_options, filesystem)})

    @classmethod
    def from_svmlight(
        cls,
        path: Paths,
        *,
        features: int | None = None,
        zero_based: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        filesystem: Any = None,
    ) -> DataConnector:
        """Return a connector for SVMLight (LIBSVM) files; its columns are `label`, `qid` if rows have one, `features`.

        Args:
            path: As for `from_parquet`.
            features: How many there are, for files in which the last ones do not occur; None for the largest index.
            zero_based: Whether indices start at 0 rather than 1. An index 0 is an error unless it is True.
            storage_options: As for `from_parquet`.
            filesystem: As for `from_parquet`.
        """
        options = {"features": features, "zero_based": zero_based, **_storage(storage_options, filesystem)}
        return cls(_plain_paths(path), "svmlight", options)

    @classmethod
    def from_dataset(cls, dataset: Any) -> DataConnector:
        """Return a connector for a `pyarrow.dataset.Dataset`; the values of its hive partitions are columns."""
        return cls(dataset, "dataset")

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> DataConnector:
        """Return a connector for an Arrow table or record batch, without a copy."""
        return cls(table, "arrow")

    @classmethod
    def from_dataframe(cls, obj: object) -> DataConnector:
        """Return a connector for a pandas or polars DataFrame, a DuckDB relation, or any `__arrow_c_stream__`.

        The rows are turned into an Arrow table in the driver's memory when a run starts. A
        `pyarrow.RecordBatchReader` can be read once only, so it is read at once.
        """
        if isinstance(obj, str | os.PathLike):
            raise InvalidArgumentError("connecting to a DataFrame", f"found the path {obj!r}", "Use from_parquet.")
        if isinstance(obj, pa.RecordBatchReader):
            return cls.from_arrow(obj.read_all())
        return cls(obj)

    @classmethod
    def from_ray_dataset(cls, dataset: Any) -> DataConnector:
        """Return a connector for a materialised `ray.data.Dataset`."""
        return cls(dataset, "ray")

    @classmethod
    def from_sources(cls, sources: Sequence[object]) -> DataConnector:
        """Return a connector for several tables of one schema, one after another in the order given.

        Args:
            sources: Connectors, sources, or whatever `of` accepts.
        """
        return cls(tuple(map(cls.of, sources)), "concat")

    def resolve(self, registry: SourceRegistry) -> DataSource:
        """Return the source behind this connector. Called once a run, on the driver, with the run's registry.

        Raises:
            InvalidArgumentError: No source claims the data, or two do.
            DataError: The data cannot be opened.
        """
        if isinstance(self.data, DataSource):
            return self.data
        data: object = self.data
        if isinstance(data, tuple) and data and all(isinstance(part, DataConnector) for part in data):
            data = tuple(part.resolve(registry) for part in cast("tuple[DataConnector, ...]", data))
        if self._in_stage(registry):
            return registry.open_source(data, {**self.options, "format": self.source}, STAGE)
        return registry.open_source(data, self.options, self.source)

    def schema(self, registry: SourceRegistry | None = None) -> pa.Schema:
        """Return the columns and their Arrow types."""
        return self._open(registry).schema()

    def count_rows(self, registry: SourceRegistry | None = None) -> int:
        """Return the exact number of rows, from metadata where there is some."""
        return sum(fragment.rows for fragment in self._open(registry).fragments())

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        batch_rows: int = BATCH_ROWS,
        registry: SourceRegistry | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield every row once, in global row order.

        Args:
            columns: Which columns, in this order; None means all.
            batch_rows: Most rows of a batch.
            registry: Where to look sources up; None means the default one.

        Raises:
            UnknownColumnError: A column does not exist, or exists twice.
        """
        source = self._open(registry)
        yield from _read(source, _selected(source, columns), batch_rows)

    def to_arrow(self, limit: int | None = None, registry: SourceRegistry | None = None) -> pa.Table:
        """Return the rows as an Arrow table.

        Args:
            limit: Only the first so many rows; None means all.
            registry: Where to look sources up; None means the default one.
        """
        source = self._open(registry)
        batches = list(_read(source, _selected(source, None), BATCH_ROWS, limit))
        return pa.Table.from_batches(batches, schema=source.schema()).unify_dictionaries()

    def to_pandas(self, limit: int | None = None, registry: SourceRegistry | None = None) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame; `limit` as for `to_arrow`."""
        return self.to_arrow(limit, registry).to_pandas()

    def to_ray_dataset(self, registry: Any = None) -> Any:
        """Return the rows as a `ray.data.Dataset`, through the exporter called `ray`.

        Raises:
            UnknownNameError: No such exporter is installed.
        """
        return (_default_registry() if registry is None else registry).get("exporters", "ray")(self)

    def to_torch_dataset(
        self,
        batch_size: int | None = None,
        shuffle: bool = False,
        drop_last_batch: bool = False,
        seed: int = 0,
        *,
        registry: Any = None,
        **options: Any,
    ) -> Any:
        """Return all rows as a PyTorch dataset of dicts, column -> tensor, through the exporter called `torch`.

        Args:
            batch_size: Rows of a batch; None means 1024.
            shuffle: Whether each epoch has another order of the rows.
            drop_last_batch: Whether rows that do not fill the last batch are left out.
            seed: Of the shuffle.
            registry: Where to look the exporter and sources up; None means the default one.
            **options: Of the exporter.

        Raises:
            UnknownNameError: No such exporter is installed.
        """
        found = _default_registry() if registry is None else registry
        arguments = {"batch_size": batch_size, "shuffle": shuffle, "drop_last_batch": drop_last_batch, "seed": seed}
        return found.get("exporters", "torch")(self, **arguments, registry=found, **options)

    def describe(self) -> str:
        """Return one line that names the data for people, with secrets redacted."""
        options = f", {redact_options(self.options)!r}" if self.options else ""
        return f"{self.source or 'data'} {_describe_data(self.data)}{options}"

    def __repr__(self) -> str:
        return f"DataConnector({self.describe()})"

    def _in_stage(self, registry: SourceRegistry) -> bool:
        """Return whether the data are files that the source `stage` opens: `@NAME/path`, and URLs if it is there."""
        paths = [self.data] if isinstance(self.data, str) else self.data
        if self.source not in ("parquet", "csv") or not isinstance(paths, list) or "filesystem" in self.options:
            return False
        if any(isinstance(path, str) and path.startswith("@") for path in paths):
            return True
        remote = all(isinstance(path, str) and "://" in path and "?" not in path for path in paths)
        return bool(paths) and remote and STAGE in registry.names("sources")

    def _open(self, registry: SourceRegistry | None) -> DataSource:
        return self.resolve(_default_registry() if registry is None else registry)


def _default_registry() -> Any:
    # Here and not above: the registry imports the built-in sources, and a connector needs none to exist.
    from shardfit.registry import default_registry

    return default_registry()


def _plain_paths(path: Paths) -> str | list[str]:
    if isinstance(path, str | os.PathLike):
        return os.fspath(path)
    return [os.fspath(item) for item in path]


def _storage(storage_options: Mapping[str, Any] | None, filesystem: Any) -> dict[str, Any]:
    given = {"storage_options": dict(storage_options) if storage_options else None, "filesystem": filesystem}
    return {key: value for key, value in given.items() if value is not None}


def _selected(source: DataSource, columns: Sequence[str] | None) -> tuple[str, ...]:
    schema = source.schema()
    names = tuple(schema.names) if columns is None else tuple(columns)
    for name in names:
        check_column(name, schema)
    return names


def _read(
    source: DataSource, columns: Sequence[str], batch_rows: int, limit: int | None = None
) -> Iterator[pa.RecordBatch]:
    left = limit
    for fragment in source.fragments():
        if left == 0:
            return
        stop = fragment.rows if left is None else min(left, fragment.rows)
        if stop:
            yield from source.read(fragment, columns, 0, stop, batch_rows)
        left = None if left is None else left - stop


def _describe_data(data: object) -> str:
    if isinstance(data, str):
        return repr(redact_url(data))
    if isinstance(data, DataSource | DataConnector):
        return data.describe()
    if isinstance(data, list | tuple):
        shown = ", ".join(_describe_data(item) for item in data[:3])
        return f"[{shown}, ... {len(data)} in all]" if len(data) > 3 else f"[{shown}]"
    return f"{type(data).__module__.partition('.')[0]}.{type(data).__qualname__}"

"""Datasets of `pyarrow.dataset`, as a source; the values of hive partitions are columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as pads

from shardfit.errors import InvalidArgumentError, SourceNotFoundError, UnreadableSourceError
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit.sources.concat import ConcatSource
from shardfit.sources.file_access import FileAccess, ListedFile
from shardfit.sources.parquet import damaged
from shardfit.sources.row_range import take_rows
from shardfit.sources.schemas import common_schema, conform, select_columns

METADATA_THREADS = 16
_READ_AHEAD = 2


class _Reader(NamedTuple):
    """What a worker needs beside its fragments."""

    access: FileAccess
    format: pads.FileFormat
    full_schema: pa.Schema
    partitions: tuple[Any, ...]


class DatasetSource(DataSource):
    """Rows of a file system dataset, sorted by file and then row group; other formats have one fragment a file.

    Columns that a file lacks are null, as pyarrow has it. Only the files' addresses and the distinct partitions are
    kept, not the dataset: workers get no list of files.

    Args:
        dataset: Neither filtered nor in memory.

    Raises:
        InvalidArgumentError: The dataset is filtered.
    """

    def __init__(self, dataset: pads.FileSystemDataset) -> None:
        _check_unfiltered(dataset)
        self._dataset: pads.FileSystemDataset | None = dataset
        access = FileAccess(dataset.filesystem, f"{_scheme(dataset.filesystem)}://")
        self._reader = _Reader(access, dataset.format, dataset.schema, ())
        self._fragments: tuple[Fragment, ...] | None = None

    def schema(self) -> pa.Schema:
        """Return the columns, those of the partitions included."""
        return common_schema(self._reader.full_schema)

    def fragments(self) -> Sequence[Fragment]:
        """Return every row group, or every file where the format has none."""
        if self._fragments is None:
            self._reader, self._fragments = self._list()
        return self._fragments

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment; rows before `start` are decoded and thrown away."""
        access, wanted = self._reader.access, select_columns(self.schema(), tuple(columns))
        with access.planned(fragment, lambda error: self._unreadable(fragment, columns, error)):
            for batch in take_rows(self._scan(fragment, columns, batch_rows), start, stop, batch_rows):
                yield conform(batch, wanted)

    def describe(self) -> str:
        """Return the format and the number of files, or what is left of it on a worker."""
        files = "" if self._dataset is None else f" of {len(self._dataset.files)} files"
        return f"a {self._reader.format.default_extname} dataset{files}"

    def __getstate__(self) -> dict[str, Any]:
        if self._dataset is not None:
            self.fragments()
        return {**self.__dict__, "_dataset": None, "_fragments": None}

    def _list(self) -> tuple[_Reader, tuple[Fragment, ...]]:
        if self._dataset is None:
            raise SourceNotFoundError(
                "listing a dataset on a worker", "found no list of files", "A worker reads the fragments it is told."
            )
        access = self._reader.access
        parts = sorted(self._dataset.get_fragments(), key=lambda part: access.uri(part.path))
        infos = access.filesystem.get_file_info([part.path for part in parts])
        partitions: list[Any] = []
        numbers = [_number_of(part.partition_expression, partitions) for part in parts]
        files = [access.listed(info) for info in infos]
        pool = ThreadPoolExecutor(METADATA_THREADS, thread_name_prefix="shardfit-dataset")
        try:
            listed = list(pool.map(_list_file, parts, files, numbers))
        finally:
            pool.shutdown(cancel_futures=True)
        fragments = tuple(fragment for file in listed for fragment in file)
        return self._reader._replace(partitions=tuple(partitions)), fragments

    def _scan(self, fragment: Fragment, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        reader, (partition, by_row_group) = self._reader, fragment.position
        groups = {"row_groups": [fragment.index]} if by_row_group else {}
        part = reader.format.make_fragment(
            reader.access.path(fragment.uri), reader.access.filesystem, reader.partitions[partition], **groups
        )
        batches: Iterator[pa.RecordBatch] = part.to_batches(
            schema=reader.full_schema, columns=list(columns), batch_size=batch_rows, batch_readahead=_READ_AHEAD
        )
        return batches

    def _unreadable(self, fragment: Fragment, columns: Sequence[str], error: Exception) -> UnreadableSourceError:
        def read(column: str) -> None:
            for _ in self._scan(fragment, [column], 65_536):
                pass

        group = f", row group {fragment.index}" if fragment.position[1] else ""
        return damaged(f"{fragment.uri!r}{group}", columns, read, error)


class DatasetOpener:
    """Opens datasets of `pyarrow.dataset`: of files, in memory, and unions of them."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a dataset."""
        return Claim(10, "a pyarrow dataset") if isinstance(data, pads.Dataset) else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source of a dataset; it takes no options.

        Raises:
            InvalidArgumentError: The dataset is filtered.
        """
        if isinstance(data, pads.UnionDataset):
            _check_unfiltered(data)
            return ConcatSource([self.open(child.replace_schema(data.schema), {}) for child in data.children])
        if isinstance(data, pads.FileSystemDataset):
            return DatasetSource(data)
        if isinstance(data, pads.Dataset):
            return ArrowSource(data.to_table(), "a pyarrow dataset in memory")
        raise InvalidArgumentError("opening a dataset", f"found {type(data).__name__}", "Pass a pyarrow dataset.")


def _list_file(part: Any, file: ListedFile, partition: int) -> list[Fragment]:
    by_row_group = hasattr(part, "row_groups")
    try:
        if not by_row_group:
            rows = part.count_rows()
            return [Fragment(file.uri, 0, rows, None, file.version, (partition, 0))]
        return [
            Fragment(file.uri, group.id, group.num_rows, group.total_byte_size, file.version, (partition, 1))
            for group in part.row_groups
        ]
    except (OSError, pa.ArrowException) as error:
        raise UnreadableSourceError(
            f"reading the metadata of {file.uri!r}", str(error) or type(error).__name__, "Write the file again."
        ) from error


def _number_of(partition: Any, known: list[Any]) -> int:
    # Files of one partition stand side by side; one that comes back is only kept twice.
    if known and partition.equals(known[-1]):
        return len(known) - 1
    known.append(partition)
    return len(known) - 1


def _check_unfiltered(dataset: pads.Dataset) -> None:
    # The filter changes how many rows a fragment has, which metadata cannot tell.
    if getattr(dataset, "_scan_options", {}).get("filter") is not None:
        raise InvalidArgumentError(
            "opening a dataset",
            "found a filter",
            "Pass the dataset without it, or its rows: DataConnector.from_arrow(dataset.to_table()).",
        )


def _scheme(filesystem: Any) -> str:
    name: str = filesystem.type_name
    return "file" if name == "local" else name

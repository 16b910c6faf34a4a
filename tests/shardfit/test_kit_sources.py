"""The built-in sources pass the kit that a stranger's must pass."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import pyarrow.feather as feather
import pyarrow.parquet as pq

from shardfit.source import DataSource
from shardfit.sources.arrow import ArrowSource
from shardfit.sources.concat import ConcatSource
from shardfit.sources.csv_files import CsvOpener
from shardfit.sources.dataframe import DataFrameOpener
from shardfit.sources.dataset import DatasetOpener
from shardfit.sources.parquet import ParquetOpener
from shardfit.testing import SourceKit


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def halves(table: pa.Table) -> list[pa.Table]:
    return [table.slice(0, table.num_rows // 2), table.slice(table.num_rows // 2)]


class TestParquet(SourceKit):
    def write(self, folder: Path, table: pa.Table) -> None:
        for i, half in enumerate(halves(table)):
            pq.write_table(half, folder / f"{i}.parquet", row_group_size=50)

    def open(self, folder: Path) -> DataSource:
        return ParquetOpener().open(str(folder), {})

    def change(self, folder: Path) -> None:
        (folder / "0.parquet").unlink()
        touch(folder / "1.parquet")


class TestCsv(SourceKit):
    def write(self, folder: Path, table: pa.Table) -> None:
        for i, half in enumerate(halves(table)):
            pacsv.write_csv(half, folder / f"{i}.csv")

    def open(self, folder: Path) -> DataSource:
        types = {field.name: str(field.type) for field in self.table(0).schema}
        return CsvOpener().open(str(folder), {"column_types": types, "block_bytes": 2000})

    def change(self, folder: Path) -> None:
        for path in folder.iterdir():
            touch(path)


class TestDataset(SourceKit):
    def write(self, folder: Path, table: pa.Table) -> None:
        for i, half in enumerate(halves(table)):
            feather.write_feather(half, folder / f"{i}.feather")

    def open(self, folder: Path) -> DataSource:
        return DatasetOpener().open(pads.dataset(folder, format="feather"), {})

    def change(self, folder: Path) -> None:
        for path in folder.iterdir():
            touch(path)


class InMemory(SourceKit):
    never_changes: ClassVar[str] = "Rows in memory are those that were handed over."

    def write(self, folder: Path, table: pa.Table) -> None:
        feather.write_feather(table, folder / "a.feather")


class TestArrow(InMemory):
    def open(self, folder: Path) -> DataSource:
        return ArrowSource(feather.read_table(folder / "a.feather"), fragment_rows=50)


class TestDataFrame(InMemory):
    def open(self, folder: Path) -> DataSource:
        return DataFrameOpener().open(pl.from_arrow(feather.read_table(folder / "a.feather")), {})


class TestConcat(InMemory):
    def open(self, folder: Path) -> DataSource:
        parts = halves(feather.read_table(folder / "a.feather"))
        return ConcatSource([ArrowSource(part, fragment_rows=50) for part in parts])

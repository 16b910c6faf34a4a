"""Files in stages keep every promise of a source: named, by URL, through obstore, spooled and not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from obstore.store import LocalStore

from shardfit.connector import DataConnector
from shardfit.errors import ChangedDataError, InvalidArgumentError, SourceNotFoundError, UnknownNameError
from shardfit.registry import Registry
from shardfit.source import DataSource
from shardfit.sources.csv_files import CsvOpener
from shardfit.sources.parquet import ParquetSource
from shardfit.testing import SourceKit
from shardfit.testing.source_kit import read_table
from shardfit_stages import Catalogue, StageTarget, hooks, use_catalogue
from shardfit_stages.remote_files import ObjectFiles
from shardfit_stages.spool import SpoolSettings
from shardfit_stages.stage_source import SpooledSource, open_files

CANARY = "hunter2canary"


def far_away(folder: Path) -> pafs.FileSystem:
    """A folder as obstore sees a bucket."""
    return pafs.PyFileSystem(ObjectFiles(LocalStore(os.fspath(folder)), "bucket", "s3"))


class RemoteFilesKit(SourceKit):
    def write(self, folder: Path, table: pa.Table) -> None:
        (folder / "train").mkdir(exist_ok=True)
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), folder / "train" / "a.parquet", row_group_size=max(half // 3, 1))
        pq.write_table(table.slice(half), folder / "train" / "b.parquet", row_group_size=50)

    def open(self, folder: Path) -> DataSource:
        inner = ParquetSource(["bucket/train"], {"filesystem": far_away(folder)})
        return SpooledSource(inner, ["@A.B.C/train"], SpoolSettings(os.fspath(folder / ".spool")))

    def change(self, folder: Path) -> None:
        path = folder / "train" / "b.parquet"
        table = pq.read_table(path)
        pq.write_table(table.slice(0, table.num_rows - 1), path)


class TestRemoteFiles(RemoteFilesKit):
    """Parquet files of an object store."""


class TestSpooledFiles(RemoteFilesKit):
    """The same, kept on local disk by whoever reads them."""

    def open(self, folder: Path) -> DataSource:
        return super().open(folder).for_passes(3)


def registry_of(catalogue: Catalogue) -> Registry:
    registry = Registry()
    use_catalogue(registry, catalogue)
    return registry


@pytest.fixture
def rows(tmp_path: Path) -> pa.Table:
    table = pa.table({"x": pa.array(range(100), pa.int64()), "y": [i % 7 / 2 for i in range(100)]})
    for name, part in {"2023": table.slice(0, 40), "2024": table.slice(40)}.items():
        folder = tmp_path / "files" / "train" / name
        folder.mkdir(parents=True)
        pq.write_table(part, folder / "part.parquet", row_group_size=15)
        pa.csv.write_csv(part, folder / "part.csv")
    return table


@pytest.mark.parametrize("path", ["@a.b.c/train/", "@A.B.C/train/*/*.parquet", '@"A".B.C/train'])
def test_a_stage_that_is_a_folder_is_read_as_files(path: str, rows: pa.Table, tmp_path: Path) -> None:
    registry = registry_of(Catalogue({"A.B.C": tmp_path / "files"}))
    connector = DataConnector.from_parquet(path)
    assert connector.to_arrow(registry=registry).equals(rows)
    assert path.replace('"', "") in connector.describe().replace('"', "")
    # No need to say what it is: the name begins with `@`.
    assert DataConnector(path).to_arrow(registry=registry).equals(rows)


def test_csv_files_and_lists_of_paths_are_read_too(rows: pa.Table, tmp_path: Path) -> None:
    registry = registry_of(Catalogue({"A.B.C": f"file://{tmp_path / 'files'}"}))
    paths = ["@A.B.C/train/2023/part.csv", "@A.B.C/train/2024/part.csv"]
    for connector in (DataConnector.from_csv(paths), DataConnector(paths)):
        assert connector.to_arrow(registry=registry).column("x").to_pylist() == rows.column("x").to_pylist()


def test_csv_files_are_read_through_obstore(rows: pa.Table, tmp_path: Path) -> None:
    source = CsvOpener().open(["bucket/train/*/part.csv"], {"filesystem": far_away(tmp_path / "files")})
    assert read_table(source).column("y").to_pylist() == rows.column("y").to_pylist()


def test_a_file_that_is_written_again_in_the_same_second_with_the_same_size_is_another(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"x": [1, 2, 3]}), path)
    source = ParquetSource(["bucket/train"], {"filesystem": far_away(tmp_path)})
    (fragment,) = source.fragments()
    worker = pickle.loads(pickle.dumps(source))
    before = obstore.head(LocalStore(os.fspath(tmp_path)), "train/a.parquet")
    other = tmp_path / "b.parquet"
    pq.write_table(pa.table({"x": [1, 2, 4]}), other)
    moment = path.stat().st_mtime_ns
    other.replace(path)
    os.utime(path, ns=(moment, moment))
    after = obstore.head(LocalStore(os.fspath(tmp_path)), "train/a.parquet")
    assert (before["size"], before["last_modified"]) == (after["size"], after["last_modified"])
    with pytest.raises(ChangedDataError, match=r"s3://bucket/train/a\.parquet"):
        list(worker.read(fragment, ["x"], 0, 3, 10))


def test_what_is_missing_or_unknown_is_said_in_the_words_of_the_user(tmp_path: Path) -> None:
    registry = registry_of(Catalogue({"A.B.C": tmp_path / "files"}))
    with pytest.raises(UnknownNameError, match=r"There is: A\.B\.C"):
        DataConnector.from_parquet("@A.B.X/train").schema(registry)
    with pytest.raises(InvalidArgumentError, match="leads out of the stage"):
        DataConnector.from_parquet("@A.B.C/../other").schema(registry)
    with pytest.raises(SourceNotFoundError, match="train"):
        DataConnector.from_parquet("@A.B.C/train").schema(registry)
    with pytest.raises(SourceNotFoundError, match="bucket/none"):
        ParquetSource(["bucket/none"], {"filesystem": far_away(tmp_path)}).schema()
    with pytest.raises(UnknownNameError, match="pip install shardfit-stages"):
        DataConnector.from_parquet("@A.B.C/train").schema(Registry())


def test_files_of_one_source_lie_on_one_storage() -> None:
    catalogue = Catalogue({"A.B.C": "s3://one/x", "A.B.D": "s3://two/x"})
    with pytest.raises(InvalidArgumentError, match="several storages"):
        open_files(["@A.B.C/a.parquet", "@A.B.D/b.parquet"], {}, catalogue)


def test_options_that_no_client_takes_are_refused_without_their_values() -> None:
    catalogue = Catalogue({"A.B.C": StageTarget("s3://bucket/x", {"no_such_option": CANARY})})
    with pytest.raises(SourceNotFoundError, match="no_such_option") as caught:
        open_files(["@A.B.C/a.parquet"], {}, catalogue)
    assert CANARY not in repr(caught.getrepr(chain=True))


def test_a_url_is_read_with_the_options_of_the_stage_that_it_lies_in(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    def connect(url: str, options: Any, environ: Any) -> Any:
        used.append((url, options))
        return far_away(Path()), "bucket/train"

    monkeypatch.setattr("shardfit_stages.remote_files.connect", connect)
    registry = registry_of(Catalogue({"A.B.C": StageTarget("s3://bucket/x", {"region": "eu"})}))
    DataConnector.from_parquet("s3://bucket/x/train").resolve(registry)
    DataConnector.from_parquet("@A.B.C/train").resolve(registry)
    assert used == [("s3://bucket/x/train", {"region": "eu"})] * 2
    # Others are pyarrow's, as they are without this plugin; so are those that say how to connect.
    DataConnector.from_parquet("s3://elsewhere/train").resolve(registry)
    DataConnector.from_parquet("s3://bucket/x/train?region=us").resolve(registry)
    DataConnector.from_parquet("s3://bucket/x/train", storage_options={"region": "us"}).resolve(registry)
    assert len(used) == 2


def test_the_plugin_is_what_is_installed(tmp_path: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFIT_STAGE_ROOT", os.fspath(tmp_path / "files"))
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    registry.register(hooks, "stages")
    assert DataConnector.from_parquet("@~/train").to_arrow(registry=registry).equals(rows)

"""The connector: a description that reads nothing until asked, and shows no secrets."""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError, SourceNotFoundError, UnknownColumnError
from shardfit.hookspecs import hookimpl
from shardfit.redaction import redact_options, redact_url
from shardfit.registry import Registry
from shardfit.source import Claim, DataSource
from shardfit.sources.arrow import ArrowSource

TABLE = pa.table({"x": np.arange(100), "s": pa.array([str(i % 7) for i in range(100)]).dictionary_encode()})
CANARY = "canary-3f9c"


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for i in range(3):
        pq.write_table(TABLE.slice(i * 40, 40), tmp_path / f"{i}.parquet", row_group_size=15)
    pacsv.write_csv(TABLE.select(["x"]), tmp_path / "all.csv")
    return tmp_path


def rows_of(connector: DataConnector, registry: Registry) -> list[int]:
    return connector.to_arrow(registry=registry)["x"].to_pylist()


def test_every_way_to_connect_reads_the_same_rows(files: Path, registry: Registry) -> None:
    glob = str(files / "*.parquet")
    connectors = [
        DataConnector.from_parquet(glob),
        DataConnector.from_parquet([files / "2.parquet", files / "0.parquet", files / "1.parquet"]),
        DataConnector.from_csv(files / "all.csv"),
        DataConnector.from_dataset(pads.dataset([str(path) for path in sorted(files.glob("*.parquet"))])),
        DataConnector.from_arrow(TABLE),
        DataConnector.from_arrow(TABLE.combine_chunks().to_batches()[0]),
        DataConnector.from_dataframe(TABLE.to_pandas()),
        DataConnector.from_dataframe(pl.from_arrow(TABLE)),
        DataConnector.from_dataframe(TABLE.to_reader()),
        DataConnector.from_sources([DataConnector.from_arrow(TABLE.slice(0, 80)), str(files / "2.parquet")]),
        DataConnector.of(glob),
        DataConnector.of(files / "all.csv"),
        DataConnector.of([files / "0.parquet", files / "1.parquet", files / "2.parquet"]),
        DataConnector.of(TABLE.to_pandas()),
        DataConnector.of(TABLE),
        DataConnector.of(TABLE.to_reader()),
        DataConnector.of(ArrowSource(TABLE)),
    ]
    for connector in connectors:
        assert rows_of(connector, registry) == list(range(100)), connector
        assert rows_of(connector, registry) == list(range(100)), f"{connector}, the second time"
        assert connector.count_rows(registry) == 100
        assert connector.schema(registry).names[0] == "x"


def test_a_connector_is_passed_on_as_it_is() -> None:
    connector = DataConnector.from_arrow(TABLE)
    assert DataConnector.of(connector) is connector


def test_connecting_reads_nothing(tmp_path: Path, registry: Registry) -> None:
    connector = DataConnector.from_parquet(tmp_path / "later.parquet")
    source = connector.resolve(registry)
    with pytest.raises(SourceNotFoundError, match=r"later\.parquet"):
        source.schema()
    pq.write_table(TABLE, tmp_path / "later.parquet")
    assert connector.count_rows(registry) == 100


@pytest.mark.parametrize("limit", [0, 1, 40, 41, 100, 1000])
def test_a_limit_takes_the_first_rows_only(files: Path, registry: Registry, limit: int) -> None:
    connector = DataConnector.from_parquet(files / "*.parquet")
    assert connector.to_arrow(limit, registry)["x"].to_pylist() == list(range(100))[:limit]
    frame = connector.to_pandas(limit, registry)
    assert isinstance(frame, pd.DataFrame)
    assert frame["x"].tolist() == list(range(100))[:limit]
    assert frame["s"].tolist() == [str(i % 7) for i in range(100)][:limit]


def test_batches_have_the_columns_and_sizes_asked_for(files: Path, registry: Registry) -> None:
    connector = DataConnector.from_parquet(files / "*.parquet")
    batches = list(connector.to_batches(["s", "x"], batch_rows=6, registry=registry))
    assert all(batch.schema.names == ["s", "x"] and 1 <= batch.num_rows <= 6 for batch in batches)
    assert [value for batch in batches for value in batch["x"].to_pylist()] == list(range(100))


def test_a_column_that_is_not_there_or_there_twice_is_named(registry: Registry) -> None:
    with pytest.raises(UnknownColumnError, match="Did you mean 'value'"):
        list(DataConnector.from_arrow(pa.table({"value": [1]})).to_batches(["valeu"], registry=registry))
    twice = pa.table([[1], [2]], names=["x", "x"])
    with pytest.raises(UnknownColumnError, match="2 columns"):
        DataConnector.from_arrow(twice).to_arrow(registry=registry)


def test_a_connector_is_pickled_with_its_data(files: Path, registry: Registry) -> None:
    parts = [DataConnector.from_parquet(files / "0.parquet"), DataConnector.from_arrow(TABLE.slice(40))]
    connector = pickle.loads(pickle.dumps(DataConnector.from_sources(parts)))
    assert rows_of(connector, registry) == list(range(100))


def test_a_connector_made_before_any_plugin_uses_those_of_the_run() -> None:
    class EvenNumbers:
        def claims(self, data: object) -> Claim | None:
            return Claim(20) if data == "numbers.even" else None

        def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
            return ArrowSource(pa.table({"x": range(0, options["below"], 2)}))

    class Plugin:
        @hookimpl
        def shardfit_sources(self) -> Mapping[str, Any]:
            return {"even": EvenNumbers()}

    connector = DataConnector("numbers.even", options={"below": 7})
    with pytest.raises(InvalidArgumentError):
        connector.resolve(Registry())
    registry = Registry()
    registry.register(Plugin())
    assert rows_of(connector, registry) == [0, 2, 4, 6]


def test_without_a_registry_the_default_one_is_used(files: Path) -> None:
    assert DataConnector.of(str(files / "all.csv")).count_rows() == 100


def test_a_path_is_no_dataframe() -> None:
    with pytest.raises(InvalidArgumentError, match="from_parquet"):
        DataConnector.from_dataframe("a.parquet")


def test_exporting_to_ray_asks_the_registry_for_the_exporter() -> None:
    class Exporters:
        def get(self, kind: str, name: str) -> Any:
            return lambda connector: (kind, name, connector)

    connector = DataConnector.from_arrow(TABLE)
    assert connector.to_ray_dataset(Exporters()) == ("exporters", "ray", connector)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{CANARY}@bucket/a.parquet",
        f"s3://bucket/a.parquet?session_token={CANARY}&region=eu-west-1",
        f"https://host/a.parquet?X-Amz-Signature={CANARY}",
        f"abfss://box:{CANARY}@account.dfs.core.windows.net/a.parquet",
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str) -> None:
    options = {"secret_key": CANARY, "nested": {"password": CANARY}, "region": "eu-west-1"}
    for data in (url, [url, url]):
        connector = DataConnector.from_parquet(data, storage_options=options)
        for shown in (connector.describe(), repr(connector), str(connector)):
            assert CANARY not in shown
            assert "a.parquet" in shown
            assert "eu-west-1" in shown
    assert CANARY not in DataConnector.from_parquet(url).resolve(Registry()).describe()


def test_errors_show_no_secrets() -> None:
    connector = DataConnector.from_parquet(f"s3://user:{CANARY}@bucket/a?endpoint_override=host&no_such_key={CANARY}")
    with pytest.raises(SourceNotFoundError) as caught:
        connector.schema(Registry())
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_secret_stays_readable() -> None:
    assert redact_url("/data/a b@c?d=e.parquet") == "/data/a b@c?d=e.parquet"
    assert redact_url("s3://bucket/a*.parquet?region=x") == "s3://bucket/a*.parquet?region=x"
    assert redact_url("abfss://box@account.dfs.core.windows.net/a") == "abfss://box@account.dfs.core.windows.net/a"
    assert redact_options({"delimiter": ";", "skip_rows": 2}) == {"delimiter": ";", "skip_rows": 2}


def test_importing_the_connector_imports_no_dataframe_library() -> None:
    code = "import sys, shardfit.connector; print({'pandas','polars','duckdb','ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

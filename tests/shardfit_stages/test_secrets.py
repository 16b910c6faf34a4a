"""A secret in options or URLs of stages appears in no record, manifest, plan, event, log, trace or exception."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import from_url
from typer.testing import CliRunner

from scripts.object_servers import KEY, Server
from shardfit.cli import app
from shardfit.connector import DataConnector
from shardfit.errors import ShardfitError
from shardfit.registry import Registry
from shardfit_stages import Catalogue, StageTarget, use_catalogue
from shardfit_xgboost import XGBEstimator
from shardfit_xgboost import hooks as xgboost_hooks

CANARY = "hunter2canary"


def table(rows: int = 60) -> pa.Table:
    return pa.table({"x": [float(i % 7) for i in range(rows)], "y": [float(i % 7) ** 2 for i in range(rows)]})


def registry_with(target: StageTarget, trace: bool = False) -> Registry:
    registry = Registry(trace=trace)
    registry.register(xgboost_hooks, "xgboost")
    use_catalogue(registry, Catalogue({"A.B.C": target}))
    return registry


def fitted(registry: Registry, observers: list[Callable[[Any], None]], data: object, stage: str) -> XGBEstimator:
    estimator = XGBEstimator(2, artifact_stage_location=stage, registry=registry, observers=observers)
    estimator.fit(data, ["x"], "y")
    return estimator


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def test_a_run_that_goes_well_leaves_no_secret_anywhere(
    moto_server: Server, tmp_path: Path, everything_logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"{moto_server.url}/{tmp_path.name}"
    registry = registry_with(StageTarget(url, {**moto_server.options, "session_token": CANARY}), trace=True)
    bucket = from_url(url, config=dict(moto_server.options), client_options={"allow_http": True})
    pq.write_table(table(), tmp_path / "a.parquet")
    bucket.put("train/a.parquet", (tmp_path / "a.parquet").read_bytes())
    seen: list[str] = []

    def observe(event: Any) -> None:
        seen.append(repr(event) + json.dumps(event.to_dict(), default=repr))

    estimator = fitted(registry, [observe], DataConnector.from_parquet("@A.B.C/train"), "@A.B.C")
    result = estimator.result
    stored = {
        str(meta["path"]): bytes(bucket.get(str(meta["path"])).bytes()) for batch in bucket.list() for meta in batch
    }
    assert any(path.endswith("record.json") for path in stored)
    shown = [
        *seen,
        *(repr(content) for content in stored.values()),
        *stored,
        json.dumps(result.plan.to_dict()),
        repr(result),
        repr(result.store),
        repr(result.plan.datasets["train"].source),
        result.get_model_dir(),
        repr(registry.describe()),
        everything_logged.text,
        *capfd.readouterr(),
    ]
    for secret in (CANARY, KEY):
        assert [text for text in shown if secret in text] == []


@pytest.mark.parametrize(
    "target",
    [
        StageTarget("s3://bucket/x", {"secret_access_key": CANARY, "no_such_option": CANARY}),
        StageTarget(f"s3://user:{CANARY}@bucket/x"),
        StageTarget(f"s3://bucket/x?sig={CANARY}"),
        StageTarget(
            "s3://bucket/x",
            {
                "endpoint": "http://127.0.0.1:9",
                "access_key_id": "me",
                "secret_access_key": CANARY,
                "session_token": CANARY,
                "patience_s": 0.5,
            },
        ),
        StageTarget("az://container/x", {"account_name": "a", "account_key": CANARY, "patience_s": 0.5}),
    ],
    ids=["unknown option", "password in a url", "signature in a url", "nobody there", "a key that is none"],
)
@pytest.mark.parametrize("use", ["stage", "data"])
def test_what_goes_wrong_is_told_without_the_secret(
    use: str, target: StageTarget, tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    registry, seen = registry_with(target, trace=True), []
    data: object = DataConnector.from_parquet("@A.B.C/train") if use == "data" else table()
    with pytest.raises(ShardfitError) as caught:
        fitted(
            registry,
            [lambda event: seen.append(repr(event))],
            data,
            "@A.B.C" if use == "stage" else os.fspath(tmp_path),
        )
    shown = ["".join(traceback.format_exception(caught.value)), *seen, everything_logged.text]
    shown += [path.read_text() for path in tmp_path.rglob("*.json")]
    assert [text for text in shown if CANARY in text] == []


def test_the_command_line_shows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"endpoint": "http://127.0.0.1:9", "secret_access_key": CANARY, "access_key_id": "me", "patience_s": 0.5}
    monkeypatch.setenv("SHARDFIT_STAGES", json.dumps({"A.B.C": {"url": "s3://bucket", "options": options}}))
    for arguments in (["list", "A.B.C"], ["check", "A.B.C"], ["list", f"s3://u:{CANARY}@bucket"], ["list", "A.B.X"]):
        done = CliRunner().invoke(app, ["stage", *arguments])
        assert done.exit_code == 2, done.output
        assert CANARY not in done.output

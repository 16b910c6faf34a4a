"""A job is one frozen value, and what is wrong with it is said with the key."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidJobError
from shardfit.job import Job

FULL = """
trainer = "xgboost"
workers = 2
seed = 7
checkpoint_every_rounds = 5
checkpoint_every_seconds = 0
stage = "stage"

[data]
path = ["a.parquet", "/abs/b.parquet", "s3://bucket/c.parquet"]
format = "parquet"
options = { storage_options = { region = "eu-west-1" } }

[evals.held_out]
path = "sub/*.parquet"

[evals]
short = "d.csv"

[columns]
label = "y"
categorical = ["a", "b"]

[params]
max_depth = 3
"""


def job(**fields: Any) -> Job:
    return Job(**{"trainer": "xgboost", "data": "x.parquet", **fields})


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_full_job_file_is_read_and_its_paths_start_from_its_folder(tmp_path: Path) -> None:
    read = Job.from_toml(write(tmp_path, FULL))
    assert read.data.data == [os.fspath(tmp_path / "a.parquet"), "/abs/b.parquet", "s3://bucket/c.parquet"]
    assert (read.data.source, read.data.options) == ("parquet", {"storage_options": {"region": "eu-west-1"}})
    assert read.evals["held_out"].data == os.fspath(tmp_path / "sub" / "*.parquet")
    assert read.evals["short"].data == os.fspath(tmp_path / "d.csv")
    assert read.columns == ColumnRoles(label=("y",), categorical=("a", "b"))
    assert read.stage == os.fspath(tmp_path / "stage")
    assert (read.workers, read.seed, read.params) == (2, 7, {"max_depth": 3})
    assert (read.checkpoint_every_rounds, read.checkpoint_every_seconds) == (5, None)


def test_defaults_leave_everything_to_be_decided() -> None:
    made = job()
    assert (made.workers, made.cpus_per_worker, made.use_gpu) == (-1, -1, None)
    assert (made.sharding, made.scaling, made.stage, made.seed) == ("auto", "default", None, 0)
    assert (made.evals, made.columns, made.max_attempts) == ({}, ColumnRoles(), 3)


def test_data_may_be_a_table_a_connector_or_a_path(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    connector = DataConnector.from_arrow(table)
    assert job(data=table).data.data is table
    assert job(data=connector).data is connector
    assert job(data=tmp_path).data.data == os.fspath(tmp_path)


def test_numbers_of_numpy_are_numbers() -> None:
    made = job(workers=np.int64(3), seed=np.int32(5), checkpoint_every_rounds=np.int64(2))
    assert (made.workers, made.seed, made.checkpoint_every_rounds) == (3, 5, 2)


def test_a_job_can_not_be_changed() -> None:
    made = job()
    with pytest.raises(ValueError, match="frozen"):
        made.workers = 3


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"workres": 2}, ["'workres'", "Did you mean 'workers'?"]),
    ({"zzz": 2}, ["'zzz'", "There is: checkpoint_every_rounds"]),
    ({"data": {"path": "a", "frmat": "csv"}}, ["'data.frmat'", "'format'"]),
    ({"evals": {"m": {"pth": "a"}}}, ["'evals.m.pth'", "'path'", "'evals.m.path'", "missing"]),
    ({"columns": {"lable": "y"}}, ["'columns.lable'", "'label'"]),
    ({"columns": {"label": 3}}, ["'columns.label'", "found 3"]),
    ({"columns": "y"}, ["'columns'", "found 'y'", "categorical"]),
    ({"workers": 0}, ["'workers'", "found 0", "-1 for all"]),
    ({"cpus_per_worker": -2}, ["'cpus_per_worker'", "found -2"]),
    ({"workers": "4"}, ["'workers'", "found '4'", "integer"]),
    ({"workers": True}, ["'workers'", "found True"]),
    ({"workers": 2.5}, ["'workers'", "found 2.5"]),
    ({"seed": 2**31}, ["'seed'", "2147483648"]),
    ({"seed": -1}, ["'seed'", "found -1"]),
    ({"use_gpu": "yes"}, ["'use_gpu'", "found 'yes'"]),
    ({"trainer": ""}, ["'trainer'", "found ''"]),
    ({"trainer": 3}, ["'trainer'", "found 3"]),
    ({"data": None}, ["'data'", "found None", "DataConnector"]),
    ({"data": {"path": []}}, ["'data.path'", "found []"]),
    ({"data": {"path": "a", "options": "token=hunter2"}}, ["'data.options'"]),
    ({"data": {"path": "a", "format": 3}}, ["'data.format'", "found 3"]),
    ({"evals": {"train": "a"}}, ["'evals'", "other than 'train'"]),
    ({"evals": "a"}, ["'evals'", "found 'a'"]),
    ({"params": [1]}, ["'params'", "found [1]"]),
    ({"max_attempts": 0}, ["'max_attempts'", "found 0"]),
    ({"checkpoint_every_rounds": -1}, ["'checkpoint_every_rounds'", "found -1"]),
    ({"checkpoint_every_seconds": -0.5}, ["'checkpoint_every_seconds'", "found -0.5"]),
    ({"wrkers": 2, "seed": "x"}, ["'wrkers'", "'seed'", "found 'x'", "'workers'"]),
]


@pytest.mark.parametrize(("fields", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_with_the_key_and_the_value(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InvalidJobError) as caught:
        job(**fields)
    assert [part for part in said if part not in str(caught.value)] == []
    assert "hunter2" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    fields: dict[str, Any] = {"data": "x"}
    with pytest.raises(InvalidJobError, match=r"'trainer'.*missing"):
        Job(**fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer = ", "no valid TOML"),
        ("trainer = 'x'\nwrkers = 1\n[data]\npath = 'a'", r"key 'wrkers'.*Did you mean 'workers'"),
        ("trainer = 'x'\ndata = 3", r"key 'data'.*found 3"),
        ("trainer = 'x'\n[data]\npath = 3", r"key 'data.path'.*found 3"),
        ("trainer = 'x'\nevals = 3\ndata = 'a'", r"key 'evals'.*found 3"),
        ("trainer = 'x'\nparams = 3\ndata = 'a'", r"key 'params'.*found 3"),
    ],
)
def test_a_wrong_job_file_names_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidJobError, match=said) as caught:
        Job.from_toml(write(tmp_path, text))
    assert "job.toml" in str(caught.value)


def test_a_job_file_that_can_not_be_read_is_an_error_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match="No such file"):
        Job.from_toml(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidJobError, match="no valid TOML"):
        Job.from_toml(tmp_path / "binary.toml")


CODE = "trainer = 'x'\ndata = 'a'\n[params]\nobjective = '{value}'\nnested = {{ deep = ['{value}'] }}\n"


def test_code_in_a_job_file_runs_only_when_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job_code_probe.py").write_text(
        "import pathlib\npathlib.Path(__file__ + '.ran').touch()\ndef f(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, CODE.format(value="python:job_code_probe:f"))
    with pytest.raises(InvalidJobError, match=r"'params.objective'.*--allow-code"):
        Job.from_toml(path)
    assert not list(tmp_path.glob("*.ran"))
    params = Job.from_toml(path, allow_code=True).params
    assert params["objective"].__name__ == "f"
    assert params["nested"]["deep"] == [params["objective"]]


@pytest.mark.parametrize("value", ["python:no_such_module:f", "python:math:nothing", "python:math", "python:math:pi"])
def test_code_that_leads_to_no_function_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidJobError, match=r"'params.objective'.*" + value):
        Job.from_toml(write(tmp_path, CODE.format(value=value)), allow_code=True)


def test_a_description_is_json_and_holds_no_secret() -> None:
    made = job(
        data={
            "path": "s3://key:hunter2@bucket/x?sig=hunter2",
            "options": {"storage_options": {"secret_key": "hunter2"}},
        },
        evals={"m": DataConnector("x", options={"token": "hunter2"})},
        params={"password": "hunter2", "objective": max, "rate": np.float32(0.5), "nan": float("nan"), "set": {2, 1}},
        stage="s3://user:hunter2@bucket/stage",
        columns={"features": ["a"], "label": "y"},
    )
    text = json.dumps(made.describe(), allow_nan=False)
    assert "hunter2" not in text
    described = json.loads(text)
    assert described["params"] | {"password": ""} == {
        "password": "", "objective": "builtins:max", "rate": 0.5, "nan": "nan", "set": [1, 2],
    }  # fmt: skip
    assert described["columns"]["label"] == ["y"]
    assert described["trainer"] == "xgboost"


_STRANGE = st.text(min_size=1, max_size=12).filter(lambda key: key not in Job.model_fields)


@given(st.dictionaries(_STRANGE, st.integers() | st.text(max_size=5) | st.none(), min_size=1, max_size=3))
def test_any_unknown_key_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidJobError) as caught:
        job(**fields)
    assert [key for key in fields if repr(key) not in str(caught.value)] == []

"""`shardfit stage` as people and scripts meet it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shardfit.cli import app
from shardfit.stores.local import LocalStore

NAME = "DB.SCHEMA.MODELS"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a catalogue and a file to put."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDFIT_STAGE_ROOT", os.fspath(tmp_path / "mine"))
    (tmp_path / "shardfit.toml").write_text(f'[stages]\n"{NAME}" = "models"\n')
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "model.txt").write_text("tree")
    (tmp_path / "files" / "deep" / "er.txt").write_text("leaf")
    return tmp_path


def stage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stage", *arguments])


def answer(*arguments: str) -> Any:
    done = stage(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_an_artifact_goes_in_is_listed_shown_comes_out_and_goes(place: Path) -> None:
    put = answer("put", "db.schema.models", "model/1", "files")
    assert put == {"address": os.fspath(place / "models/model/1"), "files": ["deep/er.txt", "model.txt"]}
    assert answer("list", f"@{NAME}") == {"stage": f"@{NAME}", "artifacts": ["model/1"]}
    assert answer("list", NAME, "--prefix", "run/")["artifacts"] == []
    shown = answer("show", NAME, "model/1")
    assert [(file["name"], file["size"]) for file in shown["files"]] == [("deep/er.txt", 4), ("model.txt", 4)]
    assert answer("get", NAME, "model/1", "here")["files"] == ["here/deep/er.txt", "here/model.txt"]
    assert (place / "here" / "deep" / "er.txt").read_text() == "leaf"
    assert answer("rm", NAME, "model/1") == {"removed": "model/1"}
    assert list(LocalStore(place / "models").list()) == []


def test_for_people_there_are_lines_and_tables() -> None:
    assert "It holds no artifact." in stage("list").stdout
    assert "Published at" in stage("put", NAME, "model/1", "files/model.txt").stdout
    for part in ("model.txt", "4 B"):
        assert part in stage("show", NAME, "model/1").stdout
    assert "model/1" in stage("list", NAME).stdout
    assert "Removed model/1" in stage("rm", NAME, "model/1").stdout
    assert "0 files removed" in stage("gc", NAME).stdout


def test_garbage_of_a_writer_that_died_is_collected(place: Path) -> None:
    (place / "models" / ".staging" / "dead").mkdir(parents=True)
    (place / "models" / ".staging" / "dead" / "half").touch()
    assert answer("gc", NAME) == {"removed_files": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "DB.SCHEMA.MODEL"], f"Did you mean {NAME}"),
        (["list", "@DB.SCHEMA"], "a part is missing"),
        (["show", NAME, "model/none"], "there is none"),
        (["rm", NAME, "model/none"], "there is none"),
        (["put", NAME, "../out", "files"], "'../out'"),
        (["put", NAME, "model/1", "nowhere"], "'nowhere'"),
        (["put", NAME, "model/1", "files", "files/model.txt"], "twice"),
        (["list", f"@{NAME}/../.."], "leads out of the stage"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = stage(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rights_are_proved_by_using_them_and_nothing_is_left(place: Path) -> None:
    found = answer("check", NAME)
    assert {right["right"]: right["granted"] for right in found["rights"]} == dict.fromkeys(
        ["write", "read", "list", "create if absent", "delete"], True
    )
    assert list(LocalStore(place / "models").list()) == []


def test_a_right_that_is_not_there_is_named_with_advice(place: Path) -> None:
    (place / "models").write_text("no folder")
    done = stage("check", NAME)
    assert done.exit_code == 2
    assert "write " in done.stdout
    assert " no " in done.stdout


def test_help_names_every_command() -> None:
    shown = stage("--help").stdout
    assert all(f" {name} " in shown for name in ("list", "show", "get", "put", "rm", "gc", "check"))

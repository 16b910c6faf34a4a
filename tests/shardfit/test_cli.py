"""The command line as people and scripts meet it: a real process, real files, a real stage."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PLUGIN = """
import sys, time
import pyarrow as pa
from shardfit.hookspecs import hookimpl
from shardfit.trainer import Trainer

class Mean(Trainer):
    def configure(self, params):
        if "explode" in params:
            raise ZeroDivisionError("a bug in the plugin")
        return dict(params)

    def run_worker(self, context, shards, config, settings, meeting):
        print("noise on standard output", flush=True)
        total = rows = 0
        for batch in shards["train"].batches():
            values = batch.records.column(settings.roles.label[0])
            total, rows = total + sum(values.to_pylist()), rows + len(values)
        context.report(0, {"train-mean": total / rows})
        if "sleep" in config:
            print("sleeping", file=sys.stderr, flush=True)
            time.sleep(config["sleep"])
        return total, rows

    def collect(self, values):
        return sum(total for total, _ in values) / sum(rows for _, rows in values)

    def save(self, model):
        return {"model.txt": str(model).encode()}

    def load(self, files):
        return float(files["model.txt"])

    def predict(self, model, batch):
        return pa.array([model] * batch.num_rows)

@hookimpl
def shardfit_trainers():
    return {"mean": Mean}
"""


class Shell:
    """Runs `shardfit` in a folder that has a trainer plugin, data and a stage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        information = folder / "path" / "sf_mean-1.0.dist-info"
        information.mkdir(parents=True)
        (folder / "path" / "sf_mean.py").write_text(PLUGIN)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sf-mean\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[shardfit]\nmean = sf_mean\nbroken = sf_missing\n")
        pq.write_table(pa.table({"x": range(100), "y": [1.0, 3.0] * 50}), folder / "data.parquet", row_group_size=30)
        self.environ = {
            **os.environ,
            "PYTHONPATH": os.fspath(folder / "path"),
            "SHARDFIT_STAGE_ROOT": os.fspath(folder / "stage"),
            "SHARDFIT_PLUGINS": "mean,broken",
        }
        self.environ.pop("RAY_ADDRESS", None)

    def job(self, extra: str = "", name: str = "job.toml") -> str:
        text = 'trainer = "mean"\ncolumns = { label = "y" }\ndata = "data.parquet"\n' + textwrap.dedent(extra)
        (self.folder / name).write_text(text)
        return os.fspath(self.folder / name)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from shardfit.cli import main; main()", *arguments]
        return subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_train_publishes_a_model_and_prints_where_it_is(shell: Shell) -> None:
    done = shell.run("train", shell.job())
    assert done.returncode == 0, done.stderr
    assert "100 rows planned, 100 used, each row once" in done.stdout
    (model,) = (shell.folder / "stage").glob("model/*/model.txt")
    assert model.read_text() == "2.0"
    assert f"Model: {model.parent}" in done.stdout
    assert "There is no cluster" in done.stderr


def test_train_as_json_is_one_document_whatever_trainers_print(shell: Shell) -> None:
    result = shell.json("train", shell.job())
    assert result["metrics"] == {"train-mean": 2.0}
    assert result["coverage"] == {"train": {"planned": 100, "used": 100, "exact": True}}
    assert Path(result["model_address"], "model.txt").read_text() == "2.0"


def test_plan_shows_who_reads_what_and_why_and_starts_nothing(shell: Shell) -> None:
    done = shell.run("plan", shell.job())
    assert done.returncode == 0, done.stderr
    for part in (
        "Data",
        "data.parquet",
        "100",
        "Workers (engine inline)",
        "There is no cluster",
        "Passes over",
        "peak",
    ):
        assert part in done.stdout
    assert not (shell.folder / "stage").exists()


def test_plan_as_json_has_the_fragments_the_layout_and_the_job(shell: Shell) -> None:
    plan = shell.json("plan", shell.job("[params]\npassword = 'hunter2'"))
    assert (plan["datasets"]["train"]["fragments"], plan["datasets"]["train"]["rows"]) == (4, 100)
    assert plan["datasets"]["train"]["worker_rows"] == [100]
    assert plan["reasons"]
    assert plan["job"]["params"] == {"password": "***"}


def test_plan_asks_the_engine_that_the_job_names(shell: Shell) -> None:
    shell.environ["RAY_ADDRESS"] = "127.0.0.1:1"
    assert shell.run("plan", shell.job()).returncode == 2
    assert shell.json("plan", shell.job('engine = "inline"'))["engine"] == "inline"


def test_runs_lists_what_was_done_and_how_it_ended(shell: Shell) -> None:
    assert shell.json("runs")["runs"] == []
    shell.run("train", shell.job())
    assert shell.run("train", shell.job("[params]\nsleep = 'a bug'")).returncode != 0
    runs = shell.json("runs")["runs"]
    assert [run["status"] for run in runs] == ["finished", "failed"]
    assert [run["metrics"]["train-mean"] for run in runs] == [[2.0], [2.0]]
    shown = shell.run("runs", "--stage", os.fspath(shell.folder / "stage")).stdout
    assert all(run["run_id"] in shown for run in runs)
    assert "No run has been recorded" in shell.run("runs", "--stage", os.fspath(shell.folder / "other")).stdout


def test_plugins_shows_what_each_provides_and_why_one_is_broken(shell: Shell) -> None:
    found = {plugin["name"]: plugin for plugin in shell.json("plugins")["plugins"]}
    assert sorted(found) == ["broken", "builtin", "mean"]
    assert found["mean"]["provides"] == {"trainers": ["mean"]}
    assert (found["mean"]["distribution"], found["mean"]["version"]) == ("sf-mean", "1.0")
    assert "No module named 'sf_missing'" in found["broken"]["error"]
    assert "parquet" in found["builtin"]["provides"]["sources"]
    assert "broken: ModuleNotFoundError" in shell.run("plugins").stdout


def test_cluster_shows_this_machine_where_there_is_no_cluster(shell: Shell) -> None:
    cluster = shell.json("cluster")
    assert cluster["engine"] == "inline"
    assert [node["cpus"] >= 1 for node in cluster["nodes"]] == [True]
    assert "Engine: inline" in shell.run("cluster").stdout


def test_version_prints_the_version(shell: Shell) -> None:
    assert shell.run("--version").stdout.startswith("shardfit 0.")


@pytest.mark.parametrize(
    ("command", "extra", "said"),
    [
        ("train", "workrs = 2", "Did you mean 'workers'?"),
        ("plan", "[params]\nobjective = 'python:os:system'", "--allow-code"),
        ("plan", "[evals.m]\npath = 'missing.parquet'", "missing.parquet"),
        ("train", "stage = 's3://me:hunter2@bucket/x'", "s3://***@bucket"),
    ],
)
def test_an_error_of_the_user_is_one_message_and_exit_code_2(shell: Shell, command: str, extra: str, said: str) -> None:
    done = shell.run(command, shell.job(extra), "--json")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_trainer_says_what_to_install(shell: Shell) -> None:
    path = shell.job()
    Path(path).write_text(Path(path).read_text().replace("mean", "xgboost"))
    done = shell.run("plan", path)
    assert (done.returncode, "pip install shardfit-xgboost" in done.stderr) == (2, True)


def test_a_bug_keeps_its_traceback(shell: Shell) -> None:
    done = shell.run("plan", shell.job("[params]\nexplode = 1"))
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug in the plugin" in done.stderr
    assert "Traceback" in done.stderr


def test_an_interrupt_exits_130_says_so_and_leaves_a_record(shell: Shell) -> None:
    with shell.start("train", shell.job("[params]\nsleep = 60"), "--json") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "sleeping" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert out == ""
    assert [run["status"] for run in shell.json("runs")["runs"]] == ["cancelled"]
    assert not list((shell.folder / "stage").glob("model*"))

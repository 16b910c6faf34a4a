"""The command `shardfit`: train, plan, plugins, cluster, runs, and what plugins add."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shardfit.cli.output import AsJson, answering
from shardfit.cli.plugin_commands import WithPluginCommands
from shardfit.cli.tables import show_cluster, show_files, show_plan, show_plugins, show_result, show_runs
from shardfit.job import Job
from shardfit.redaction import redact
from shardfit.registry import default_registry
from shardfit.registry.discovery import core_version

# Without rich's tracebacks, which show the values of variables, secrets among them.
app = typer.Typer(
    name="shardfit",
    cls=WithPluginCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train from tables larger than one machine: the same model however many workers trained it.",
)

runs_app = typer.Typer(help="Show the runs of a stage, or go on with one.")
app.add_typer(runs_app, name="runs")

Stage = Annotated[str | None, typer.Option(help="Where they were published; your own stage if left out.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="A file that describes the job.")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run functions that the job names.")]


def main() -> None:
    """Run the command line; what `[project.scripts]` calls."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shardfit {core_version()}")
        raise typer.Exit


@app.callback()
def _shardfit(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command(no_args_is_help=True)
def train(job: JobFile, json_: AsJson = False, allow_code: AllowCode = False) -> None:
    """Train the model that a job describes, and publish it."""
    from shardfit.cli.progress import ProgressReporter
    from shardfit.train import train as train_job

    with answering(json_) as out:
        reporter = ProgressReporter(Console(stderr=True))
        try:
            result = train_job(Job.from_toml(job, allow_code), observers=[reporter])
        finally:
            reporter.close()
        out.write(_described(result), show_result)


@app.command(no_args_is_help=True)
def plan(job: JobFile, json_: AsJson = False, allow_code: AllowCode = False) -> None:
    """Show what training would do: who reads what, with how much memory, and why. Starts no worker."""
    from shardfit.engines import current_resources
    from shardfit.run_plan import plan_run

    with answering(json_) as out:
        described = Job.from_toml(job, allow_code)
        planned = plan_run(described, default_registry(), current_resources(os.environ, described.engine))
        out.write({"job": described.describe(), **planned.to_dict()}, show_plan)


@app.command()
def plugins(json_: AsJson = False) -> None:
    """Show every plugin, what it provides, and what is wrong with it."""
    with answering(json_) as out:
        infos = default_registry().describe()
        content = [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "provides": {kind: list(names) for kind, names in info.provides.items()},
                "error": info.error,
            }
            for info in infos
        ]
        out.write({"plugins": content}, show_plugins)


@app.command()
def cluster(json_: AsJson = False) -> None:
    """Show the engine and the nodes that a run would use now."""
    from shardfit.engines import current_resources

    with answering(json_) as out:
        found = current_resources(os.environ)
        nodes = [
            {"name": n.name, "address": n.address, "cpus": n.cpus, "gpus": n.gpus, "memory": n.memory}
            for n in found.nodes
        ]
        out.write({"engine": found.engine, "nodes": nodes}, show_cluster)


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context, stage: Stage = None, json_: AsJson = False) -> None:
    """Show the runs of a stage, the oldest first; those that go on, and those whose driver is gone, too."""
    from shardfit.presence import list_runs
    from shardfit.stores.local import user_stage_root

    if context.invoked_subcommand is not None:
        return
    with answering(json_) as out:
        location = stage or os.fspath(user_stage_root(os.environ))
        records = list_runs(default_registry().open_store(location), datetime.now(UTC))
        content = {"stage": redact(location), "runs": [json.loads(record.to_json()) for record in records]}
        out.write(content, show_runs)


@runs_app.command(name="resume", no_args_is_help=True)
def resume(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Of a run that `shardfit runs` shows.")],
    stage: Stage = None,
    job: Annotated[Path | None, typer.Option(help="The job's file, where the run could not write it down.")] = None,
    allow_code: AllowCode = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="Go on even if its driver seems to live.")] = False,
    json_: AsJson = False,
) -> None:
    """Go on with a run that failed, was cancelled or lost its driver, from its last checkpoint; on any machine."""
    from shardfit.cli.progress import ProgressReporter
    from shardfit.resume_run import resume_run

    with answering(json_) as out:
        given = None if job is None else Job.from_toml(job, allow_code)
        reporter = ProgressReporter(Console(stderr=True))
        try:
            result = resume_run(run_id, stage, job=given, take_over=take_over, observers=[reporter])
        finally:
            reporter.close()
        out.write(_described(result), show_result)


@app.command(name="new-plugin", no_args_is_help=True)
def new_plugin(
    name: Annotated[str, typer.Argument(help="What jobs will call it: lower-case words with '-' between.")],
    kind: Annotated[str, typer.Option(help="trainer, source, sharding, scaling or store.")] = "trainer",
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path(),
    json_: AsJson = False,
) -> None:
    """Write a new plugin: a package that works and passes the conformance kit of its kind."""
    from shardfit.new_plugin import write_plugin

    with answering(json_) as out:
        written = write_plugin(name, kind, folder)
        out.write({"files": [path.as_posix() for path in written]}, show_files)


def _described(result: Any) -> dict[str, Any]:
    from shardfit.run_record import metrics_at

    return {
        "run_id": result.run_id,
        "attempts": result.attempts,
        "rounds": max(map(len, result.metrics.values()), default=0),
        "metrics": metrics_at(result.best_round, result.metrics),
        "best_round": result.best_round,
        "coverage": {
            name: {"planned": part.planned.rows, "used": part.handed.rows, "exact": part.exact}
            for name, part in result.coverage.items()
        },
        "phases": dict(result.phases),
        "memory": {"planned": dict(result.plan.memory.phases), "measured": dict(result.peak_memory)},
        "warnings": list(result.warnings),
        "model_address": result.model_address,
    }

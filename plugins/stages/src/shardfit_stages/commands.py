"""The command `shardfit stage`: what is in a stage, in and out of it, and what its user may do there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shardfit.artifacts import ArtifactStore
from shardfit.cli.output import USER_ERROR, AsJson, answering
from shardfit.cli.tables import show_files, show_table, size
from shardfit.errors import InvalidArgumentError
from shardfit.redaction import redact
from shardfit.registry import default_registry

Stage = Annotated[
    str, typer.Argument(metavar="STAGE", help="DB.SCHEMA.STAGE, a URL or a path; your own stage if it is @~.")
]
Artifact = Annotated[str, typer.Argument(metavar="ARTIFACT", help="Identifier, such as model/<run id>.")]

USER_STAGE = "@~"


def make_commands() -> typer.Typer:
    """Return the command and its subcommands."""
    app = typer.Typer(no_args_is_help=True, help="Look into stages, bring artifacts there and back, check rights.")
    app.command(name="list")(list_artifacts)
    app.command(name="show", no_args_is_help=True)(show)
    app.command(name="get", no_args_is_help=True)(get)
    app.command(name="put", no_args_is_help=True)(put)
    app.command(name="rm", no_args_is_help=True)(remove)
    app.command(name="gc")(collect_garbage)
    app.command(name="check")(check)
    return app


def list_artifacts(
    stage: Stage = USER_STAGE,
    prefix: Annotated[str, typer.Option(help="Only those that begin so, such as model/.")] = "",
    json_: AsJson = False,
) -> None:
    """List the whole artifacts of a stage."""
    with answering(json_) as out:
        found = list(_open(stage).list(prefix))
        out.write({"stage": redact(stage), "artifacts": found}, _show_list)


def show(stage: Stage, artifact: Artifact, json_: AsJson = False) -> None:
    """Show the manifest of an artifact: its files and what is said of it."""
    with answering(json_) as out:
        store = _open(stage)
        manifest = store.manifest(artifact)
        files = [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in manifest.files]
        content = {
            "address": store.address(artifact),
            "artifact": manifest.artifact,
            "attempt": manifest.attempt,
            "files": files,
            "metadata": dict(manifest.metadata),
        }
        out.write(content, _show_manifest)


def get(
    stage: Stage,
    artifact: Artifact,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if need be.")],
    json_: AsJson = False,
) -> None:
    """Bring the files of an artifact here, each checked against its digest."""
    with answering(json_) as out:
        manifest = _open(stage).get(artifact, folder)
        out.write({"files": [(folder / stored.name).as_posix() for stored in manifest.files]}, show_files)


def put(
    stage: Stage,
    artifact: Artifact,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders with all that is in them.")],
    json_: AsJson = False,
) -> None:
    """Publish files as one artifact: whole or not at all."""
    with answering(json_) as out:
        store = _open(stage)
        manifest = store.put(artifact, files_below(paths))
        content = {"address": store.address(artifact), "files": [stored.name for stored in manifest.files]}
        out.write(content, lambda console, shown: _line(console, f"Published at {shown['address']}"))


def remove(stage: Stage, artifact: Artifact, json_: AsJson = False) -> None:
    """Remove an artifact."""
    with answering(json_) as out:
        store = _open(stage)
        # An identifier that is misspelt would otherwise look removed.
        store.manifest(artifact)
        store.delete(artifact)
        out.write({"removed": artifact}, lambda console, shown: _line(console, f"Removed {shown['removed']}"))


def collect_garbage(stage: Stage = USER_STAGE, json_: AsJson = False) -> None:
    """Remove what writers that died have left: whatever never got its manifest."""
    with answering(json_) as out:
        gone = _open(stage).collect_garbage()
        out.write({"removed_files": gone}, lambda console, shown: _line(console, f"{gone} files removed"))


def check(stage: Stage = USER_STAGE, json_: AsJson = False) -> None:
    """Try what a run needs: to write, read, list, create only if absent, and delete. Leaves nothing behind."""
    from shardfit_stages.check import check_store

    with answering(json_) as out:
        rights = check_store(_open(stage))
        content = {
            "stage": redact(stage),
            "rights": [{"right": r.right, "granted": r.granted, "advice": redact(r.advice)} for r in rights],
        }
        out.write(content, _show_rights)
    if any(not right.granted for right in rights):
        raise typer.Exit(USER_ERROR)


def files_below(paths: list[Path]) -> dict[str, bytes | Path]:
    """Return files by the names that an artifact has them under: of a folder, those below it.

    Args:
        paths: Files and folders.

    Raises:
        InvalidArgumentError: One is not there, or two have the same name.
    """
    found: dict[str, bytes | Path] = {}
    for path in paths:
        if not path.exists():
            raise InvalidArgumentError("putting files", f"there is no {os.fspath(path)!r}", "Check the path.")
        below = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in below:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            if name in found:
                raise InvalidArgumentError("putting files", f"{name!r} is there twice", "Rename one of them.")
            found[name] = file
    return found


def _open(stage: str) -> ArtifactStore:
    return default_registry().open_store(stage)


def _show_list(console: Console, content: Mapping[str, Any]) -> None:
    _line(console, f"Stage: {content['stage']}")
    for artifact in content["artifacts"]:
        _line(console, artifact)
    if not content["artifacts"]:
        _line(console, "It holds no artifact.")


def _show_manifest(console: Console, content: Mapping[str, Any]) -> None:
    _line(console, content["address"])
    rows = [(file["name"], size(file["size"]), file["sha256"][:16]) for file in content["files"]]
    show_table(console, ["file", "size", "SHA-256"], rows)
    for name, value in sorted(content["metadata"].items()):
        if name != "history":
            _line(console, f"{name}: {value}")


def _show_rights(console: Console, content: Mapping[str, Any]) -> None:
    _line(console, f"Stage: {content['stage']}")
    rows = [(right["right"], "yes" if right["granted"] else "no", right["advice"]) for right in content["rights"]]
    show_table(console, ["right", "granted", "advice"], rows)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

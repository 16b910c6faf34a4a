"""What this plugin answers. Imports neither obstore nor mlflow: they are imported when a stage is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardfit.artifacts import ArtifactStoreOpener
from shardfit.hookspecs import CommandProvider, hookimpl
from shardfit.source import SourceOpener

if TYPE_CHECKING:
    from typer import Typer


@hookimpl
def shardfit_artifact_stores() -> Mapping[str, ArtifactStoreOpener]:
    """Provide stages by name and by URL."""
    from shardfit_stages.openers import StageStoreOpener

    return {"stage": StageStoreOpener()}


@hookimpl
def shardfit_sources() -> Mapping[str, SourceOpener]:
    """Provide the files in stages."""
    from shardfit_stages.openers import StageSourceOpener

    return {"stage": StageSourceOpener()}


@hookimpl
def shardfit_commands() -> Mapping[str, CommandProvider]:
    """Provide `shardfit stage`."""
    return {"stage": _make_commands}


def _make_commands() -> Typer:
    from shardfit_stages.commands import make_commands

    return make_commands()

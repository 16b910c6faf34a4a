"""Every hook that a plugin can answer, one example each; `docs/hooks.md` has the same list in prose.

A plugin is a module (or any object) with functions of these names, marked with `shardfit.hookimpl`. The built-ins in
`shardfit.builtin` are one. Installed plugins are found through the entry-point group `shardfit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

from shardfit.artifacts import ArtifactStoreOpener
from shardfit.events import Event
from shardfit.scaling import ScalingPolicy
from shardfit.shard_plan import ShardingStrategy
from shardfit.source import SourceOpener

if TYPE_CHECKING:
    from typer import Typer

    from shardfit.trainer import Trainer

PROJECT = "shardfit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

TrainerProvider: TypeAlias = "Callable[[], Trainer]"
Exporter: TypeAlias = "Callable[..., Any]"
CommandProvider: TypeAlias = "Callable[[], Typer]"


@hookspec
def shardfit_sources() -> Mapping[str, SourceOpener]:
    """Return data sources by name: what opens a path, a URL or an object as rows.

    Example:
        ```python
        @hookimpl
        def shardfit_sources():
            return {"parquet": ParquetOpener()}
        ```
    """
    return {}


@hookspec
def shardfit_sharding_strategies() -> Mapping[str, ShardingStrategy]:
    """Return sharding strategies by name: pure functions from fragments to a `ShardPlan`.

    Example:
        ```python
        @hookimpl
        def shardfit_sharding_strategies():
            return {"rows": shard_by_rows}
        ```
    """
    return {}


@hookspec
def shardfit_trainers() -> Mapping[str, TrainerProvider]:
    """Return trainers by name: functions that import the framework and make the `Trainer` when they are called.

    Example:
        ```python
        @hookimpl
        def shardfit_trainers():
            return {"xgboost": make_trainer}
        ```
    """
    return {}


@hookspec
def shardfit_scaling_policies() -> Mapping[str, ScalingPolicy]:
    """Return scaling policies by name: how many workers run where.

    Example:
        ```python
        @hookimpl
        def shardfit_scaling_policies():
            return {"default": DefaultScalingPolicy()}
        ```
    """
    return {}


@hookspec
def shardfit_artifact_stores() -> Mapping[str, ArtifactStoreOpener]:
    """Return artifact stores by name: what opens a location as an `ArtifactStore`.

    Example:
        ```python
        @hookimpl
        def shardfit_artifact_stores():
            return {"local": LocalStoreOpener()}
        ```
    """
    return {}


@hookspec
def shardfit_exporters() -> Mapping[str, Exporter]:
    """Return exporters by name: functions that turn a `DataConnector` into something else.

    Example:
        ```python
        @hookimpl
        def shardfit_exporters():
            return {"ray": to_ray_dataset}
        ```
    """
    return {}


@hookspec
def shardfit_commands() -> Mapping[str, CommandProvider]:
    """Return commands of the command line by name: functions that make a `typer.Typer` when the command is run.

    Example:
        ```python
        @hookimpl
        def shardfit_commands():
            return {"stage": make_commands}
        ```
    """
    return {}


@hookspec
def shardfit_on_event(event: Event) -> None:
    """Observe a run. Called on the driver for every event, in order; what it raises is logged and changes nothing.

    Args:
        event: One of the classes in `shardfit.events`.

    Example:
        ```python
        @hookimpl
        def shardfit_on_event(event):
            if isinstance(event, MetricsReported):
                print(event.round, event.metrics)
        ```
    """

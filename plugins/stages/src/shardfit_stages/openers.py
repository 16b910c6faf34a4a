"""What opens stages, as artifact stores and as sources: names by the catalogue, URLs with its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardfit.artifacts import ArtifactStore, ArtifactStoreOpener
from shardfit.hookspecs import hookimpl
from shardfit.names import is_stage_name
from shardfit.registry import Registry
from shardfit.source import Claim, DataSource, SourceOpener
from shardfit.sources.file_listing import paths_of
from shardfit_stages.catalogue import Catalogue, StageTarget

PLUGIN = "stages"
SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss")


@dataclass(frozen=True)
class StageStoreOpener:
    """Opens names of stages, and URLs of object stores, as artifact stores.

    Args:
        catalogue: Where stages are; None to look for one each time, from the working folder upwards.
    """

    catalogue: Catalogue | None = None

    def claims(self, location: str) -> Claim | None:
        """Return a claim on names of stages and on URLs of object stores."""
        if not isinstance(location, str) or not location:
            return None
        if is_stage_name(location):
            return Claim(10, "the name of a stage")
        return Claim(10, "the URL of an object store") if is_remote(location) else None

    def open(self, location: str, options: Mapping[str, Any]) -> ArtifactStore:
        """Return the store; nothing is read of it yet.

        Args:
            location: A name or a URL.
            options: For the service's client; they win over those of the catalogue.

        Raises:
            InvalidArgumentError: The name cannot be read.
            UnknownNameError: There is no such stage; lists those that exist.
            ArtifactError: The store cannot be opened.
        """
        target = resolve(location, self.catalogue)
        given = {**target.options, **options}
        if not is_remote(target.url):
            # Here, and not the plugin's: what the core has needs no other library.
            from shardfit.stores.local import LocalStoreOpener

            return LocalStoreOpener().open(target.url, given)
        from shardfit_stages.store import open_object_store

        return open_object_store(target.url, given)


@dataclass(frozen=True)
class StageSourceOpener:
    """Opens files in stages, and at URLs, as rows.

    Args:
        catalogue: As for `StageStoreOpener`.
    """

    catalogue: Catalogue | None = None

    def claims(self, data: object) -> Claim | None:
        """Return a claim on paths that all begin with `@`, and on URLs of object stores."""
        paths = paths_of(data)
        if paths is None:
            return None
        if all(path.startswith("@") for path in paths):
            return Claim(20, "files in a stage")
        # A query is pyarrow's way to say how to connect; it is left to the core's own sources.
        return Claim(15, "files in an object store") if all(map(_plain_url, paths)) else None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source; nothing is read yet.

        Args:
            data: A path in a stage or a URL, or a list of them.
            options: `format`, and the options of the source of that format.

        Raises:
            InvalidArgumentError: A name cannot be read, or paths are in several stages.
            UnknownNameError: There is no such stage; lists those that exist.
        """
        from shardfit_stages.stage_source import open_files

        return open_files(tuple(paths_of(data) or ()), options, self.catalogue)


@dataclass(frozen=True, eq=False)
class StagesPlugin:
    """The plugin with a catalogue that a program made; `use_catalogue` registers it.

    Args:
        catalogue: Where stages are.
    """

    catalogue: Catalogue

    @hookimpl
    def shardfit_artifact_stores(self) -> Mapping[str, ArtifactStoreOpener]:
        """Provide stages by name and by URL."""
        return {"stage": StageStoreOpener(self.catalogue)}

    @hookimpl
    def shardfit_sources(self) -> Mapping[str, SourceOpener]:
        """Provide the files in stages."""
        return {"stage": StageSourceOpener(self.catalogue)}


def use_catalogue(registry: Registry, catalogue: Catalogue) -> None:
    """Let a registry find stages by this catalogue alone, whatever files and the environment say.

    Args:
        registry: Its plugin `stages`, if there is one, is replaced.
        catalogue: Where stages are.
    """
    if any(info.name == PLUGIN and not info.error for info in registry.describe()):
        registry.unregister(PLUGIN)
    registry.register(StagesPlugin(catalogue), PLUGIN)


def resolve(location: str, catalogue: Catalogue | None) -> StageTarget:
    """Return where a name or URL leads, with the options that the catalogue has for it.

    Args:
        location: A name of a stage, with or without a path; a URL.
        catalogue: None to look for one from the working folder upwards.

    Raises:
        InvalidArgumentError: A name cannot be read, or leads out of its stage.
        UnknownNameError: There is no such stage.
    """
    known = Catalogue.load(os.environ, Path.cwd()) if catalogue is None else catalogue
    if is_stage_name(location):
        return known.locate(location)
    return StageTarget(location, known.options_for(location) or {})


def is_remote(location: str) -> bool:
    """Return whether a location is the URL of an object store."""
    scheme, separator, _ = location.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def _plain_url(path: str) -> bool:
    return is_remote(path) and "?" not in path

"""The plugins of a run: found, checked, asked. A typed façade over pluggy that nothing else goes around."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, overload

import pluggy

from shardfit import builtin, hookspecs
from shardfit.artifacts import ArtifactStore, ArtifactStoreOpener
from shardfit.errors import DuplicateNameError, PluginError, ShardfitError
from shardfit.events import Event, EventSink
from shardfit.hookspecs import CommandProvider, Exporter, TrainerProvider
from shardfit.names import unknown_name
from shardfit.redaction import redact
from shardfit.registry.checks import KINDS, Kind, PluginInfo, check_marked, check_provided
from shardfit.registry.claims import Candidate, choose, show
from shardfit.registry.discovery import CORE_DISTRIBUTION, FoundPlugin, core_version, describe_error, find_plugins
from shardfit.scaling import ScalingPolicy
from shardfit.shard_plan import ShardingStrategy
from shardfit.source import DataSource, SourceOpener
from shardfit.trainer import Trainer

__all__ = ["BUILTIN", "KINDS", "Kind", "PluginInfo", "Registry", "default_registry"]

logger = logging.getLogger(__name__)

BUILTIN = "builtin"
"""Name of the plugin that holds what the core provides."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    found: FoundPlugin
    discovered: bool
    provided: Mapping[Kind, Mapping[str, Any]]


class Registry:
    """The plugins of a run. Holds the built-ins; `discover` adds what is installed, `register` what a program has.

    Nothing depends on the order in which plugins were installed, discovered or registered. Not thread-safe while
    plugins are added; thread-safe afterwards.

    Args:
        trace: Log each hook call, each claim, and who answered.
    """

    def __init__(self, trace: bool = False) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._loaded: dict[str, _Loaded] = {}
        self._broken: dict[tuple[str, str], PluginInfo] = {}
        self._trace: Callable[[str], None] = _no_trace
        if trace:
            self._start_trace()
        self._add(FoundPlugin(BUILTIN, CORE_DISTRIBUTION, core_version(), builtin), discovered=False)

    def discover(self, environ: Mapping[str, str] | None = None) -> None:
        """Load every installed plugin that is not loaded yet. A broken one is recorded; the others work.

        Args:
            environ: `SHARDFIT_PLUGINS=a,b` limits loading to these plugins or distributions (unset or empty: all);
                `SHARDFIT_TRACE_PLUGINS=1` turns tracing on. None for the environment of the process.
        """
        environ = os.environ if environ is None else environ
        if environ.get("SHARDFIT_TRACE_PLUGINS", "0") not in ("", "0"):
            self._start_trace()
        names = {name.strip() for name in environ.get("SHARDFIT_PLUGINS", "").split(",")} - {""}
        for found in find_plugins(frozenset(names) or None):
            self._take(found)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin without an entry point.

        Args:
            plugin: A module or object with functions marked by `shardfit.hookimpl`.
            name: What it is called in messages; its own name or that of its class if None.

        Raises:
            DuplicateNameError: It provides a name that another plugin provides; nothing of it is kept.
            PluginError: A hook is misspelt, unmarked, raises, or returns what it may not; nothing of it is kept.
        """
        label = name or str(getattr(plugin, "__name__", type(plugin).__name__))
        self._add(FoundPlugin(label, plugin=plugin), discovered=False)

    def unregister(self, name: str) -> None:
        """Remove a plugin by its name.

        Raises:
            UnknownNameError: There is no such plugin.
        """
        if name not in self._loaded:
            raise unknown_name("plugins", name, sorted(self._loaded))
        del self._loaded[name]
        self._manager.unregister(name=name)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return every name that is provided, sorted."""
        return tuple(sorted({candidate.name for candidate in self._candidates(kind)}))

    @overload
    def get(self, kind: Literal["sources"], name: str) -> SourceOpener: ...
    @overload
    def get(self, kind: Literal["sharding_strategies"], name: str) -> ShardingStrategy: ...
    @overload
    def get(self, kind: Literal["trainers"], name: str) -> TrainerProvider: ...
    @overload
    def get(self, kind: Literal["scaling_policies"], name: str) -> ScalingPolicy: ...
    @overload
    def get(self, kind: Literal["artifact_stores"], name: str) -> ArtifactStoreOpener: ...
    @overload
    def get(self, kind: Literal["exporters"], name: str) -> Exporter: ...
    @overload
    def get(self, kind: Literal["commands"], name: str) -> CommandProvider: ...
    def get(self, kind: Kind, name: str) -> Any:
        """Return what is provided under a name.

        Raises:
            UnknownNameError: Nothing is; says what exists, what is nearest, and what to install.
            DuplicateNameError: Two installed plugins provide it.
        """
        return self._one(kind, name).provided

    def trainer(self, name: str) -> Trainer:
        """Return a new trainer; this imports its framework.

        Raises:
            UnknownNameError: No plugin provides it; says what to install.
            PluginError: The plugin cannot make it.
        """
        candidate = self._one("trainers", name)
        asked = f"making the trainer {candidate}"
        try:
            trainer = candidate.provided()
        except ShardfitError:
            raise
        except Exception as error:
            raise PluginError(asked, describe_error(error), "Is its framework installed?") from error
        if not isinstance(trainer, Trainer):
            raise PluginError(asked, f"it made a {type(trainer).__name__}", "A provider returns a shardfit.Trainer.")
        return trainer

    def open_source(self, data: object, options: Mapping[str, Any], name: str | None = None) -> DataSource:
        """Return the source for `data`: that of the opener with the highest claim.

        Args:
            data: A path, a URL, a table, whatever some opener can open.
            options: Passed to the opener.
            name: Forces one source.

        Raises:
            InvalidArgumentError: Nothing can open it.
            PluginError: Two openers claim it equally; names both.
            UnknownNameError: There is no source `name`.
            DataError: It cannot be opened.
        """
        chosen = self._one("sources", name) if name else self._choose("sources", data)
        source: DataSource = chosen.provided.open(data, options)
        return source

    def open_store(
        self, location: str, options: Mapping[str, Any] | None = None, name: str | None = None
    ) -> ArtifactStore:
        """Return the artifact store at a location: that of the opener with the highest claim.

        Args:
            location: A path or URL.
            options: Passed to the opener.
            name: Forces one kind of store.

        Raises:
            InvalidArgumentError, PluginError, UnknownNameError: As for `open_source`.
            ArtifactError: It cannot be opened.
        """
        chosen = self._one("artifact_stores", name) if name else self._choose("artifact_stores", location)
        store: ArtifactStore = chosen.provided.open(location, options or {})
        return store

    def notify(self, event: Event, observers: Sequence[EventSink] = ()) -> None:
        """Pass an event to every observer, one by one; what one raises is logged by name and goes no further.

        Args:
            event: What happened.
            observers: Called after those of the plugins, as safely.
        """
        for label in sorted(self._loaded):
            self._observe(label, event, partial(self._ask, "shardfit_on_event", label, event=event))
        for observer in observers:
            name = getattr(observer, "__qualname__", type(observer).__name__)
            self._observe(name, event, partial(observer, event))

    def describe(self) -> tuple[PluginInfo, ...]:
        """Return every plugin, the built-ins first, then by name; broken ones with the reason."""
        infos = [self._describe(loaded) for loaded in self._loaded.values()]
        return tuple(
            sorted([*infos, *self._broken.values()], key=lambda i: (i.name != BUILTIN, i.name, i.distribution))
        )

    def _take(self, found: FoundPlugin) -> None:
        if found.plugin is not None and self._manager.is_registered(found.plugin):
            return
        error = found.error
        if not error:
            try:
                self._add(found, discovered=True)
            except PluginError as refused:
                error = str(refused)
        if not error:
            return
        logger.warning("plugin %r of %s %s is not used: %s", found.name, found.distribution, found.version, error)
        self._broken[found.name, found.distribution] = PluginInfo(
            found.name, found.distribution, found.version, error=error
        )

    def _add(self, found: FoundPlugin, discovered: bool) -> None:
        label, asked = found.name, f"registering the plugin {found.name!r}"
        if label in self._loaded and discovered:
            # Two distributions may give their entry points the same name.
            label = f"{found.name} ({found.distribution})"
        if label in self._loaded:
            raise DuplicateNameError(asked, "there is a plugin of that name", "Pass another name.")
        try:
            self._manager.register(found.plugin, name=label)
            self._manager.check_pending()
            check_marked(found.plugin)
            provided = {kind: self._collect(kind, label) for kind in KINDS}
            self._check_duplicates(label, provided, discovered)
        except ShardfitError:
            self._manager.unregister(name=label)
            raise
        except Exception as error:
            if self._manager.has_plugin(label):
                self._manager.unregister(name=label)
            raise PluginError(asked, describe_error(error), "Compare its hooks with docs/hooks.md.") from error
        self._loaded[label] = _Loaded(found, discovered, provided)

    def _ask(self, hook: str, label: str, **arguments: Any) -> list[Any]:
        mine = self._manager.get_plugin(label)
        others = [plugin for plugin in self._manager.get_plugins() if plugin is not mine]
        answers: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
        return answers

    def _collect(self, kind: Kind, label: str) -> Mapping[str, Any]:
        answers = self._ask(f"shardfit_{kind}", label)
        return check_provided(kind, label, answers)

    def _check_duplicates(self, label: str, provided: Mapping[Kind, Mapping[str, Any]], discovered: bool) -> None:
        for kind in KINDS:
            for other in self._candidates(kind):
                # Between two installed plugins neither is the intruder: the name is refused when it is used.
                undecided = discovered and self._loaded[other.owner].discovered
                if other.name in provided[kind] and not undecided:
                    raise _duplicate(kind, other.name, [other.owner, label])

    def _candidates(self, kind: Kind) -> list[Candidate]:
        return [
            Candidate(name, label, value)
            for label, loaded in self._loaded.items()
            for name, value in loaded.provided[kind].items()
        ]

    def _one(self, kind: Kind, name: str) -> Candidate:
        fitting = [candidate for candidate in self._candidates(kind) if candidate.name == name]
        if not fitting:
            broken = [info for info in self._broken.values() if info.name == name]
            raise unknown_name(kind, name, self.names(kind), broken[0].error if broken else "")
        if len(fitting) > 1:
            raise _duplicate(kind, name, [candidate.owner for candidate in fitting])
        return fitting[0]

    def _choose(self, kind: Literal["sources", "artifact_stores"], asked: object) -> Candidate:
        self._trace(f"{kind}: who claims {show(asked)}?")
        return choose(kind, asked, self._candidates(kind), self._trace)

    def _observe(self, label: str, event: Event, observe: Callable[[], object]) -> None:
        try:
            observe()
        except Exception:  # noqa: BLE001 - an observer never breaks a run
            trace = redact(traceback.format_exc())
            logger.warning("the observer %r raised on %s; the run goes on\n%s", label, event.name, trace)

    def _describe(self, loaded: _Loaded) -> PluginInfo:
        found = loaded.found
        provides: dict[str, tuple[str, ...]] = {
            kind: tuple(sorted(names)) for kind, names in loaded.provided.items() if names
        }
        shared = [
            f"{other.name!r} of {kind} is also provided by {other.owner!r}"
            for kind in KINDS
            for other in self._candidates(kind)
            if other.name in loaded.provided[kind] and self._loaded[other.owner] is not loaded
        ]
        return PluginInfo(found.name, found.distribution, found.version, provides, "; ".join(shared))

    def _start_trace(self) -> None:
        if self._trace is _no_trace:
            self._trace = _log_trace
            self._manager.add_hookcall_monitoring(lambda *_: None, self._trace_call)

    def _trace_call(self, outcome: Any, hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        for implementation in implementations:
            if outcome.exception is not None:
                answer = f"raised {type(outcome.exception).__name__}"
            else:
                # Observers return nothing; of mappings the names are enough, and hold no secret.
                answer = "; ".join(", ".join(map(str, result)) for result in outcome.get_result()) or "nothing"
            self._trace(f"{hook}: {implementation.plugin_name!r} answered {answer}")


@cache
def default_registry() -> Registry:
    """Return the one registry of this process that holds what is installed; made when it is first asked for."""
    registry = Registry()
    registry.discover(os.environ)
    return registry


def _duplicate(kind: str, name: str, owners: Sequence[str]) -> DuplicateNameError:
    both = " and ".join(map(repr, sorted(owners)))
    return DuplicateNameError(
        f"looking for {name!r} among the {kind}",
        f"the plugins {both} both provide it",
        "Uninstall one, or name those to load in SHARDFIT_PLUGINS.",
    )


def _log_trace(message: str) -> None:
    # Who asks for a trace wants to see it without setting up logging first, which shows warnings only.
    logger.warning("%s", message)


def _no_trace(message: str) -> None:
    pass

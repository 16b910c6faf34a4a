"""What plugins provide, and what is checked of each before it is used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from shardfit.errors import PluginError
from shardfit.hookspecs import PROJECT

Kind: TypeAlias = Literal[
    "sources", "sharding_strategies", "trainers", "scaling_policies", "artifact_stores", "exporters", "commands"
]
KINDS: tuple[Kind, ...] = (
    "sources",
    "sharding_strategies",
    "trainers",
    "scaling_policies",
    "artifact_stores",
    "exporters",
    "commands",
)
"""What plugins provide by name; the hook of a kind is `shardfit_<kind>`."""

_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "sources": ("claims", "open"),
    "artifact_stores": ("claims", "open"),
    "scaling_policies": ("decide", "after_loss"),
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of one plugin, broken ones included.

    Args:
        name: Name of its entry point, or the name it was registered under.
        distribution: The distribution that it came with; empty where it was registered by a program.
        version: Version of the distribution.
        provides: Kind -> sorted names.
        error: Why it is not, or not fully, used; empty where all is well.
    """

    name: str
    distribution: str = ""
    version: str = ""
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    error: str = ""


def check_provided(kind: Kind, label: str, answers: Sequence[Any]) -> Mapping[str, Any]:
    """Return what a plugin answered to the hook of a kind: name -> what it provides.

    Args:
        kind: Which hook was called.
        label: The plugin's name, for messages.
        answers: The answer, or nothing where the plugin does not have the hook.

    Raises:
        PluginError: It is no mapping, a name is no text, or something lacks a method that its kind needs.
    """
    provided = answers[0] if answers else {}
    if not isinstance(provided, Mapping):
        raise PluginError(f"asking {label!r} for its {kind}", f"it returned {provided!r}", "Return a mapping.")
    needed = _NEEDED.get(kind, ("__call__",))
    for name, value in provided.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"asking {label!r} for its {kind}", f"a name is {name!r}", "Names are text.")
        if missing := [attribute for attribute in needed if not callable(getattr(value, attribute, None))]:
            found = f"{name!r} is {value!r}, which lacks {', '.join(missing)}"
            raise PluginError(f"asking {label!r} for its {kind}", found, "See docs/hooks.md.")
    return dict(provided)


def check_marked(plugin: object) -> None:
    """Check that every function with the name of a hook is marked as one.

    Raises:
        PluginError: One is not; pluggy would pass it over without a word.
    """
    for name, value in inspect.getmembers(plugin, inspect.isroutine):
        marked = hasattr(value, f"{PROJECT}_impl")
        if name.startswith("shardfit_") and not marked:
            raise PluginError("checking a plugin", f"{name!r} is not marked as a hook", "Mark it with @hookimpl.")

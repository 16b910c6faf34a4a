"""Finding installed plugins: one entry point at a time, so that a broken one takes no other down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from shardfit.hookspecs import PROJECT

ENTRY_POINT_GROUP = PROJECT
CORE_DISTRIBUTION = "shardfit"


@dataclass(frozen=True, slots=True)
class FoundPlugin:
    """What stands behind one entry point of the group `shardfit`.

    Args:
        name: Name of the entry point.
        distribution: The distribution that declares it.
        version: Version of that distribution.
        plugin: The loaded module or object; None where it could not be loaded.
        error: Why it could not be loaded, or empty.
    """

    name: str
    distribution: str = ""
    version: str = ""
    plugin: object | None = None
    error: str = ""


def find_plugins(allowed: frozenset[str] | None = None) -> Iterator[FoundPlugin]:
    """Yield what every entry point of the group leads to, in an order that installation does not change.

    Args:
        allowed: Names of entry points or distributions to load; None for all. One that is not installed is yielded
            with an error, because a misspelt name would otherwise go unnoticed.
    """
    entry_points = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=_sort_key)
    unseen = set(allowed or ())
    for entry_point in entry_points:
        names = {entry_point.name, canonicalize_name(entry_point.dist.name if entry_point.dist else "")}
        unseen -= names
        if allowed is None or names & allowed:
            yield _load(entry_point)
    for name in sorted(unseen):
        yield FoundPlugin(name, error=f"SHARDFIT_PLUGINS names {name!r}, which is not installed")


def core_version() -> str:
    """Return the version of the installed core."""
    return metadata.version(CORE_DISTRIBUTION)


def describe_error(error: BaseException) -> str:
    """Return an error as one line: its class and its message."""
    return f"{type(error).__name__}: {error}"


def _sort_key(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    return (entry_point.name, entry_point.dist.name if entry_point.dist else "")


def _load(entry_point: metadata.EntryPoint) -> FoundPlugin:
    distribution = entry_point.dist
    name = distribution.name if distribution else ""
    version = distribution.version if distribution else ""
    if distribution and (refusal := _refuse_version(distribution)):
        return FoundPlugin(entry_point.name, name, version, error=refusal)
    try:
        plugin = entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may raise anything
        return FoundPlugin(entry_point.name, name, version, error=describe_error(error))
    return FoundPlugin(entry_point.name, name, version, plugin)


def _refuse_version(distribution: metadata.Distribution) -> str:
    installed = core_version()
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) != CORE_DISTRIBUTION or not applies:
            continue
        if not requirement.specifier.contains(Version(installed), prereleases=True):
            return (
                f"it requires shardfit{requirement.specifier} and shardfit {installed} is installed. Run `pip install "
                f"--upgrade {distribution.name}` or `pip install 'shardfit{requirement.specifier}'`"
            )
    return ""

"""A new plugin, written from templates: a package that works, with tests that hold it to its contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from packaging.version import Version

from shardfit.errors import InvalidArgumentError
from shardfit.registry.discovery import core_version

PLUGIN_KINDS = ("trainer", "source", "sharding", "scaling", "store")

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".template"
_TEMPLATES = files(__package__) / "templates"


def write_plugin(name: str, kind: str, folder: Path) -> list[Path]:
    """Write the package `shardfit-{name}` into a new folder of that name, and return its files.

    Args:
        name: What jobs will call what it provides: lower-case words with `-` between.
        kind: What it provides.
        folder: Where the new folder is made.

    Raises:
        InvalidArgumentError: The name cannot be used, there is no such kind, or the folder exists.
    """
    asked = f"writing a plugin {name!r}"
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(asked, "the name cannot be used", "Use lower-case letters and digits, as 'my-name'.")
    if kind not in PLUGIN_KINDS:
        raise InvalidArgumentError(asked, f"found the kind {kind!r}", f"Use one of {', '.join(PLUGIN_KINDS)}.")
    target = folder / f"shardfit-{name}"
    if target.exists():
        raise InvalidArgumentError(asked, f"there is {str(target)!r}", "Remove it, or choose another name.")
    words = _words(name, kind)
    written = []
    for path, text in _templates(kind):
        place = target / Template(path).substitute(words)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(Template(text).substitute(words), encoding="utf-8")
        written.append(place)
    return written


def _words(name: str, kind: str) -> dict[str, str]:
    core = Version(core_version())
    return {
        "name": name,
        "kind": kind,
        "distribution": f"shardfit-{name}",
        "package": f"shardfit_{name.replace('-', '_')}",
        "Class": "".join(word.capitalize() for word in name.split("-")),
        "function": name.replace("-", "_"),
        "core": f">={core.major}.{core.minor},<{core.major}.{core.minor + 1}",
    }


def _templates(kind: str) -> Iterator[tuple[str, str]]:
    """Yield (path in the package, text) of what every plugin has and what this kind has."""
    for part in ("common", kind):
        for template in sorted((_TEMPLATES / part).iterdir(), key=lambda each: each.name):
            if template.name.endswith(_SUFFIX):
                path = template.name.removesuffix(_SUFFIX).replace("+", "/").replace("PACKAGE", "$package")
                yield path, template.read_text(encoding="utf-8")


__all__ = ["PLUGIN_KINDS", "write_plugin"]

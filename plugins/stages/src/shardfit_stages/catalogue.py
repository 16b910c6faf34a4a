"""Where stages are: a catalogue from `shardfit.toml`, the environment or a program, and folders where there is none."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownNameError
from shardfit.names import nearest
from shardfit.redaction import redact_url
from shardfit.stores.local import user_stage_root
from shardfit_stages.names import StageLocation, StageName, parse_location, parse_name

FILE_NAME = "shardfit.toml"
FILE_VARIABLE = "SHARDFIT_CATALOGUE"
STAGES_VARIABLE = "SHARDFIT_STAGES"
NAMED = ".named"
"""Folder below the user's own stage that holds the stages with names, out of sight of its listing."""

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class StageTarget:
    """Where a stage is.

    Args:
        url: URL or absolute path; hidden, since it may hold a password.
        options: For the service's client; hidden.
    """

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        return redact_url(self.url)

    def below(self, path: str) -> StageTarget:
        """Return the target of a path in the stage."""
        return StageTarget(f"{self.url.rstrip('/')}/{path}", self.options) if path else self


@dataclass(frozen=True)
class Catalogue:
    """Maps the names of stages to where they are.

    Args:
        stages: Name, in any spelling, -> URL or path, or a `StageTarget` with options.
        root: Folder that holds the stages that are not listed; None where listed ones are all there are.
        user: Folder of the user's own stage; None where `@~` means nothing.
        variables: What each `${NAME}` in URLs and options stands for when a stage is used; None to leave them alone.

    Raises:
        InvalidArgumentError: A name cannot be read, or two spellings of one name are given.
    """

    stages: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    root: Path | None = None
    user: Path | None = None
    variables: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read: dict[StageName, StageTarget] = {}
        for key, value in self.stages.items():
            name = key if isinstance(key, StageName) else parse_name(str(key))
            if name in read:
                raise InvalidArgumentError("reading a catalogue", f"the stage {name} is listed twice", "List it once.")
            read[name] = value if isinstance(value, StageTarget) else StageTarget(os.fspath(value))
        object.__setattr__(self, "stages", read)

    @classmethod
    def load(cls, environ: Mapping[str, str], folder: Path) -> Catalogue:
        """Return the catalogue that holds here: what the environment says, then the nearest `shardfit.toml`.

        Args:
            environ: `SHARDFIT_STAGES` is a JSON object like the table `[stages]`; `SHARDFIT_CATALOGUE` names the file.
            folder: Where the search for `shardfit.toml` starts; it goes upwards.

        Raises:
            InvalidArgumentError: The file or the variable cannot be read.
        """
        user = user_stage_root(environ)
        table, base = _read_file(environ, folder)
        listed = _targets(table, base, FILE_NAME)
        if text := environ.get(STAGES_VARIABLE):
            listed |= _targets(_json_object(text), folder, STAGES_VARIABLE)
        root = _root(table, base)
        return cls(listed, root or (None if listed else user / NAMED), user, dict(environ))

    def locate(self, location: str | StageLocation) -> StageTarget:
        """Return where a stage, or a path in it, is.

        Raises:
            InvalidArgumentError: It is no name of a stage, or leads out of it.
            UnknownNameError: There is no such stage, or no such variable; lists the stages that exist.
        """
        wanted = parse_location(location) if isinstance(location, str) else location
        return self._stage(wanted).below(wanted.path)

    def options_for(self, url: str) -> Mapping[str, Any] | None:
        """Return the options of the listed stage that `url` lies in, the innermost one; None if it lies in none."""
        inside = [
            (len(target.url), name)
            for name, target in self.stages.items()
            if f"{url.rstrip('/')}/".startswith(f"{target.url.rstrip('/')}/")
        ]
        return self._filled(max(inside)[1]).options if inside else None

    def _stage(self, wanted: StageLocation) -> StageTarget:
        if wanted.name is None:
            if self.user is None:
                raise UnknownNameError("looking for the stage @~", "this catalogue has none", self._exists())
            return StageTarget(os.fspath(self.user))
        if wanted.name in self.stages:
            return self._filled(wanted.name)
        if self.root is None:
            near = nearest(str(wanted.name), [str(name) for name in self.stages])
            advice = f"Did you mean {near}? {self._exists()}" if near else self._exists()
            raise UnknownNameError(f"looking for the stage {wanted.name}", "the catalogue does not list it", advice)
        return StageTarget(os.fspath(self.root.joinpath(*wanted.name.folders)))

    def _filled(self, name: StageName) -> StageTarget:
        """Return a listed stage with its variables filled in: one that is missing harms no other stage."""
        target: StageTarget = self.stages[name]
        if self.variables is None:
            return target
        options = {key: _expanded(value, self.variables, name) for key, value in target.options.items()}
        return StageTarget(_expanded(target.url, self.variables, name), options)

    def _exists(self) -> str:
        return f"There is: {', '.join(map(str, sorted(self.stages))) or 'none'}."


def _read_file(environ: Mapping[str, str], folder: Path) -> tuple[Mapping[str, Any], Path]:
    named = environ.get(FILE_VARIABLE)
    file = Path(named).expanduser() if named else _find(folder)
    if file is None:
        return {}, folder
    asked = f"reading the catalogue {os.fspath(file)!r}"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(asked, error.strerror or str(error), f"Does {FILE_VARIABLE} name it?") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # Without the parser's message, which repeats the text, secrets included.
        raise InvalidArgumentError(asked, "it is no valid TOML", "Check its quotes and brackets.") from None
    table = content.get("stages", {})
    if not isinstance(table, Mapping):
        raise InvalidArgumentError(asked, "[stages] is no table", 'Write "DB.SCHEMA.STAGE" = "s3://bucket/path".')
    return table, file.absolute().parent


def _find(folder: Path) -> Path | None:
    here = folder.absolute()
    return next((file for parent in (here, *here.parents) if (file := parent / FILE_NAME).is_file()), None)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        advice = 'Write {"DB.SCHEMA.STAGE": "s3://bucket/path"}.'
        raise InvalidArgumentError(f"reading {STAGES_VARIABLE}", "it is no JSON object", advice)
    return content


def _root(table: Mapping[str, Any], base: Path) -> Path | None:
    root = table.get("root")
    if root is None:
        return None
    if not isinstance(root, str) or "://" in root:
        raise InvalidArgumentError(f"reading [stages] root in {FILE_NAME}", "it is no path", "Name a folder.")
    return base / Path(root).expanduser()


def _targets(table: Mapping[str, Any], base: Path, where: str) -> dict[StageName, StageTarget]:
    found: dict[StageName, StageTarget] = {}
    for key, value in table.items():
        if key == "root":
            continue
        if (name := parse_name(key)) in found:
            raise InvalidArgumentError(f"reading the stages in {where}", f"{name} is listed twice", "List it once.")
        found[name] = _target(key, value, base, where)
    return found


def _target(name: str, value: Any, base: Path, where: str) -> StageTarget:
    entry = {"url": value} if isinstance(value, str) else value
    asked = f"reading the stage {name!r} in {where}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("url"), str) or entry.keys() - {"url", "options"}:
        raise InvalidArgumentError(asked, "it is neither text nor a table of url and options", 'url = "s3://..."')
    options = entry.get("options", {})
    if not isinstance(options, Mapping):
        raise InvalidArgumentError(asked, "options is no table", 'options = { region = "eu-west-1" }')
    url: str = entry["url"]
    if "://" not in url:
        url = os.fspath(base / Path(url).expanduser())
    return StageTarget(url, dict(options))


def _expanded(value: Any, variables: Mapping[str, str], name: StageName) -> Any:
    """Return the value with each `${NAME}` replaced by the variable, so that files need hold no secret."""
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise InvalidArgumentError(f"looking for the stage {name}", f"{match[1]!r} is not set", "Set the variable.")
        return variables[match[1]]

    return _VARIABLE.sub(look_up, value)

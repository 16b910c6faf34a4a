"""Names of stages as users of a warehouse write them: `DB.SCHEMA.STAGE`, `@DB.SCHEMA.STAGE/path`, `@~/path`.

Case folds as in warehouses: an identifier without quotes is upper case, whatever it was written in; in double quotes it
is what it says, and `""` is one quote. So `db.schema.stage` and `"DB".SCHEMA.STAGE` are the same stage, and
`"db".SCHEMA.STAGE` is another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from shardfit.errors import InvalidArgumentError

USER_STAGE = "~"
MOST_CHARACTERS = 255
_MOST_BYTES_OF_A_FOLDER = 255

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_IDENTIFIER = re.compile(r'"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[A-Za-z_][A-Za-z0-9_$]*)')
_FOLDER_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"


@dataclass(frozen=True, slots=True, order=True)
class StageName:
    """The name of a stage, folded: two that are equal are the same stage.

    Args:
        database: 1 to 255 characters.
        schema: As for `database`.
        stage: As for `database`.

    Raises:
        InvalidArgumentError: A part is empty, too long, or has a character that no name may have.
    """

    database: str
    schema: str
    stage: str

    def __post_init__(self) -> None:
        for part in self.parts:
            if not 1 <= len(part) <= MOST_CHARACTERS:
                raise _refused(str(self), f"a part has {len(part)} characters", f"1 to {MOST_CHARACTERS} will do.")
            if not part.isprintable():
                raise _refused(str(self), f"{part!r} has a control character", "Leave it out.")

    @property
    def parts(self) -> tuple[str, str, str]:
        """Database, schema and stage."""
        return self.database, self.schema, self.stage

    @property
    def folders(self) -> tuple[str, str, str]:
        """A folder name for each part; no two names have the same, even where case does not count.

        Raises:
            InvalidArgumentError: One would be longer than file systems allow.
        """
        database, schema, stage = (_folder(part) for part in self.parts)
        if any(len(folder) > _MOST_BYTES_OF_A_FOLDER for folder in (database, schema, stage)):
            raise _refused(str(self), "a part is too long for the name of a folder", "Shorten it, or give it a URL.")
        return database, schema, stage

    def __str__(self) -> str:
        return ".".join(map(_quoted, self.parts))


@dataclass(frozen=True, slots=True)
class StageLocation:
    """A stage and a path in it.

    Args:
        name: The stage; None for the user's own.
        path: Relative, with single `/` between; empty for the stage itself.

    Raises:
        InvalidArgumentError: `path` leads out of the stage, or is written so that it might.
    """

    name: StageName | None
    path: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        # What opens URLs reads `%2e` as a dot, and climbs.
        climbs = ".." in unquote(self.path).split("/")
        if self.path and ("/".join(parts) != self.path or climbs or self.path[0] == "/"):
            raise _refused(str(self), f"{self.path!r} leads out of the stage", "Use a plain path below it.")
        if "\\" in self.path or not self.path.isprintable():
            raise _refused(str(self), "the path has a backslash or a control character", "Use '/' between folders.")

    def __str__(self) -> str:
        return f"@{self.name or USER_STAGE}" + (f"/{self.path}" if self.path else "")


def parse_location(text: str) -> StageLocation:
    """Return the stage and the path that `@NAME/path` or `NAME` stand for.

    Args:
        text: `DB.SCHEMA.STAGE`, with or without `@` before and `/path` after it; `@~` for the user's own stage.

    Raises:
        InvalidArgumentError: It is no name of a stage, or its path leads out of the stage.
    """
    try:
        return _parse(text)
    except InvalidArgumentError as error:
        raise _refused(text, error.found, error.advice) from None


def parse_name(text: str) -> StageName:
    """Return the stage that a name stands for.

    Raises:
        InvalidArgumentError: It is none, or has a path.
    """
    location = parse_location(text)
    if location.name is None or location.path:
        raise _refused(text, "it has a path, or is the user's own stage", "Name a stage.")
    return location.name


def _parse(text: str) -> StageLocation:
    rest = text.removeprefix("@")
    if text.startswith("@") and (rest == USER_STAGE or rest.startswith(f"{USER_STAGE}/")):
        return StageLocation(None, _path(rest[1:]))
    parts = []
    for number in range(3):
        if number and not rest.startswith("."):
            break
        found = _IDENTIFIER.match(rest, 1 if number else 0)
        if found is None:
            break
        parts.append(found["plain"].upper() if found["plain"] else found["quoted"].replace('""', '"'))
        rest = rest[found.end() :]
    if len(parts) != 3 or (rest and not rest.startswith("/")):
        advice = 'Write DATABASE.SCHEMA.STAGE, "in quotes" what is no plain identifier, or @~ for your own stage.'
        raise _refused(text, f"{rest!r} is where it ceases to be one" if rest else "a part is missing", advice)
    return StageLocation(StageName(*parts), _path(rest))


def _path(rest: str) -> str:
    # One slash at the end is how people write folders; more of them, or `.`, are no plain path.
    return rest.removeprefix("/").removesuffix("/")


def _quoted(part: str) -> str:
    if _PLAIN.fullmatch(part) and part == part.upper():
        return part
    return '"' + part.replace('"', '""') + '"'


def _folder(part: str) -> str:
    """Return upper case, everything unusual in percents, and where ASCII letters were lower case as a mask of bits."""
    lower = sum(1 << number for number, letter in enumerate(part) if "a" <= letter <= "z")
    shown = "".join(
        letter.upper() if letter.upper() in _FOLDER_CHARACTERS and letter.isascii() else _percent(letter)
        for letter in part
    )
    return f"{shown}~{lower:X}" if lower else shown


def _percent(letter: str) -> str:
    return quote(letter, safe="") if quote(letter, safe="") != letter else f"%{ord(letter):02X}"


def _refused(text: str, found: str, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"reading {text!r} as the name of a stage", found, advice)

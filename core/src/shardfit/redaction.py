"""Keeping secrets out of whatever people or logs see: URLs and options with what looks secret replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
_FEW = 3

_SECRET_KEY = re.compile(
    r"pass|secret|token|credential|auth|signature|^sig$|sas|key|session|private|conn", re.IGNORECASE
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"<>]+")
_ASSIGNMENT = re.compile(
    r"(?P<name>[\w.\-]*(?:passw(?:or)?d|passphrase|secret|token|credential|authorization|signature|api_?key|access_?key"
    r"|account_?key|private_?key)[\w.\-]*['\"]?\s*[=:]\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|(?:Bearer |Basic )?[^\s,;&'\")}\]]+)",
    re.IGNORECASE,
)
_OPEN_QUERY_KEYS = frozenset({"endpoint_override", "region", "scheme", "versionId"})


def redact(text: str) -> str:
    """Return a message without its secrets: those of URLs in it, and what follows `password=`, `token:` and the like.

    Args:
        text: Anything that people may read: an error message, a line of a log.
    """
    text = _URL.sub(lambda match: redact_url(match.group()), text)
    return _ASSIGNMENT.sub(rf"\g<name>{HIDDEN}", text)


def redact_url(text: str) -> str:
    """Return a path or URL without its secrets.

    User names, passwords and the values of query parameters go, but for the few that only say where to connect. A path
    that is no URL stays as it is.

    Args:
        text: A path, glob or URL.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    address, question, query = rest.partition("?")
    authority, slash, path = address.partition("/")
    user, at, host = authority.rpartition("@")
    if at:
        authority = f"{_redact_user(scheme, user)}@{host}"
    parameters = "&".join(_redact_parameter(parameter) for parameter in query.split("&")) if question else ""
    return f"{scheme}://{authority}{slash}{path}{question}{parameters}"


def redact_urls(texts: Sequence[str]) -> str:
    """Return the first few of several paths or URLs in quotes, without their secrets, and how many more there are."""
    shown = ", ".join(repr(redact_url(text)) for text in texts[:_FEW])
    return shown + (f" and {len(texts) - _FEW} more" if len(texts) > _FEW else "")


def redact_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the values of keys that look secret replaced, at any depth, and URLs redacted."""
    return {key: HIDDEN if _SECRET_KEY.search(str(key)) else _redact_value(value) for key, value in options.items()}


def _redact_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_options(value)
    if isinstance(value, str):
        return redact_url(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_redact_value, value))
    return value


def _redact_user(scheme: str, user: str) -> str:
    # Azure writes the container where other schemes write the user: it is part of the address.
    if scheme.lower().startswith("abfs"):
        container, colon, _ = user.partition(":")
        return f"{container}:{HIDDEN}" if colon else container
    return HIDDEN


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return parameter if name in _OPEN_QUERY_KEYS or not equals else f"{name}={HIDDEN}"

"""Functions that a job file names: imported only where the user allows it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from shardfit.errors import InvalidJobError

PREFIX = "python:"


def load_callables(params: Mapping[str, Any], path: str, allow_code: bool) -> dict[str, Any]:
    """Return `params` with each text `python:package.module:function` replaced by the function, at any depth.

    Args:
        params: The table of a job file.
        path: Where it stands, for messages.
        allow_code: Whether code may be imported.

    Raises:
        InvalidJobError: Code is named and not allowed, or leads to nothing that can be called.
    """
    return {name: _load(value, f"{path}.{name}", allow_code) for name, value in params.items()}


def _load(value: Any, path: str, allow_code: bool) -> Any:
    if isinstance(value, dict):
        return load_callables(value, path, allow_code)
    if isinstance(value, list):
        return [_load(item, f"{path}[{i}]", allow_code) for i, item in enumerate(value)]
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    if not allow_code:
        advice = "Pass --allow-code (allow_code=True) if you trust the file: it runs the code that it names."
        raise InvalidJobError(f"key {path!r}", f"it names code: {value!r}", advice)
    return _import(value, path)


def _import(value: str, path: str) -> Any:
    module_name, _, attributes = value.removeprefix(PREFIX).partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "Write python:package.module:function; the module must be importable on every worker."
        raise InvalidJobError(f"key {path!r}", f"{value!r} cannot be imported: {error}", advice) from error
    if not callable(found):
        raise InvalidJobError(f"key {path!r}", f"{value!r} is {found!r}, which cannot be called", "Name a function.")
    return found

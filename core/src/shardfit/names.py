"""What to say when a name is unknown: what exists, what is nearest, what to install."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from shardfit.errors import UnknownNameError

_DISTRIBUTIONS = {
    ("trainers", "xgboost"): "shardfit-xgboost",
    ("trainers", "lightgbm"): "shardfit-lightgbm",
    ("trainers", "pytorch"): "shardfit-pytorch",
    ("exporters", "torch"): "shardfit-pytorch",
    ("sources", "stage"): "shardfit-stages",
    ("artifact_stores", "stage"): "shardfit-stages",
    ("commands", "stage"): "shardfit-stages",
}


_STAGE_NAME = re.compile(r"@.*|\".*|[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*){2}", re.DOTALL)


def is_stage_name(location: str) -> bool:
    """Return whether a location is meant as the name of a stage: `DB.SCHEMA.STAGE`, or what begins with `@` or a quote.

    Args:
        location: What names a stage or data; a path of that form is written with `./` before it.
    """
    return _STAGE_NAME.fullmatch(location) is not None


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the name of `known` that is most like `name`, or empty text where none is."""
    by_lower_case = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), list(by_lower_case), n=1)
    return by_lower_case[near[0]] if near else ""


def unknown_name(kind: str, name: str, known: Sequence[str], broken: str = "") -> UnknownNameError:
    """Return the error for a name that no plugin provides.

    Args:
        kind: What was looked for, for example `trainers`.
        name: The name that was asked for.
        known: What exists.
        broken: Why the plugin of that name could not be loaded, where there is one.
    """
    exists = ", ".join(map(repr, known)) or "none"
    advice = [f"There is: {exists}."]
    if near := nearest(name, known):
        advice.insert(0, f"Did you mean {near!r}?")
    if broken:
        advice.append(f"A plugin of that name is installed and broken: {broken}.")
    elif distribution := _DISTRIBUTIONS.get((kind, nearest(name, [n for k, n in _DISTRIBUTIONS if k == kind]))):
        advice.append(f"To install it: pip install {distribution}")
    asked = f"looking for {name!r} among the {kind.replace('_', ' ')}"
    return UnknownNameError(asked, "no plugin provides it", " ".join(advice))

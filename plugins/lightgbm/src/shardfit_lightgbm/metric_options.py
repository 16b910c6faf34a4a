"""The parameters that LightGBM's metrics take, checked: `eval_at`, `label_gain`, `auc_mu_weights`, numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from shardfit.errors import InvalidArgumentError

_TOPS = ("eval_at", "ndcg_eval_at", "ndcg_at", "map_eval_at", "map_at")
_DEFAULT_TOPS = (1, 2, 3, 4, 5)
_LABELS = 31
_SMALLEST_WEIGHT = float.fromhex("0x1.aa2428p-117")  # 1e-35 as float32


def tops(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the places that `eval_at` asks for, in order and once each; 1 to 5 by default.

    Raises:
        InvalidArgumentError: One is not a whole number from 1.
    """
    name = next((name for name in _TOPS if params.get(name) is not None), _TOPS[0])
    given = _numbers(name, params.get(name))
    for top in given:
        if top < 1 or top != math.floor(top):
            raise _unusable(name, params[name], "Use whole numbers from 1, as in [1, 3, 5]")
    return tuple(sorted({int(top) for top in given})) or _DEFAULT_TOPS


def gains(params: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the gain of each label from 0 on; 2**label - 1 for labels to 30 by default.

    Raises:
        InvalidArgumentError: A gain is negative, or less than that of a lower label.
    """
    given = _numbers("label_gain", params.get("label_gain"))
    if any(gain < 0 for gain in given) or list(given) != sorted(given):
        raise _unusable("label_gain", params["label_gain"], "Use numbers from 0, none below the one before it")
    return given or tuple(2.0**label - 1 for label in range(_LABELS))


def pair_weights(params: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """Return `auc_mu_weights` by rows of the matrix, with zeros on the diagonal; nothing where it is not given.

    Raises:
        InvalidArgumentError: It has not one number for each pair of classes, or a zero off the diagonal.
    """
    given = _numbers("auc_mu_weights", params.get("auc_mu_weights"))
    if not given:
        return ()
    classes = int(number(params, "num_class", 1, lambda count: count >= 1, "Use a whole number from 1"))
    if len(given) != classes**2:
        raise _unusable("auc_mu_weights", params["auc_mu_weights"], f"Use {classes**2} numbers, one for each pair")
    rows = [given[start : start + classes] for start in range(0, len(given), classes)]
    matrix = tuple(tuple(0.0 if i == j else weight for j, weight in enumerate(row)) for i, row in enumerate(rows))
    if any(abs(weight) <= _SMALLEST_WEIGHT for i, row in enumerate(matrix) for weight in row[:i] + row[i + 1 :]):
        raise _unusable("auc_mu_weights", params["auc_mu_weights"], "Only those on the diagonal may be 0")
    return matrix


def number(
    params: Mapping[str, Any], name: str, default: float, allowed: Callable[[float], bool], advice: str
) -> float:
    """Return the number that a parameter holds.

    Raises:
        InvalidArgumentError: It is no number, or not an allowed one.
    """
    given = params.get(name)
    values = _numbers(name, default if given is None else given)
    if len(values) != 1 or not allowed(values[0]):
        raise _unusable(name, given, advice)
    return values[0]


def _numbers(name: str, given: object) -> tuple[float, ...]:
    """Return numbers given as one, as several, or as text with commas as LightGBM takes it."""
    if given is None:
        return ()
    if isinstance(given, str):
        values: list[Any] = [part for part in given.split(",") if part.strip()]
    else:
        values = list(given) if hasattr(given, "__iter__") else [given]
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)) or any(isinstance(value, bool) for value in values):
        raise _unusable(name, given, "Use numbers")
    return numbers


def _unusable(name: str, given: object, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"reading {name} for a metric", f"found {given!r}", f"{advice}.")

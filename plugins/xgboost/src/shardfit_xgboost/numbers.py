"""Numbers among the parameters that shardfit reads itself, before XGBoost can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shardfit.errors import InvalidArgumentError

_COUNTS = {"n_estimators": 1, "early_stopping_rounds": 1, "num_class": 0, "num_parallel_tree": 1, "max_bin": 2}
_NUMBERS = ("missing", "huber_slope", "tweedie_variance_power")


def check_numbers(params: Mapping[str, Any]) -> None:
    """Check the types and ranges of parameters; those that are None count as not given.

    Raises:
        InvalidArgumentError: A value is no number, or too small; names the parameter and the value.
    """
    for name, least in _COUNTS.items():
        value = params.get(name)
        if value is not None and not (_is_whole(value) and value >= least):
            raise _unusable(name, value, f"Use a whole number of {least} or more.")
    for name in _NUMBERS:
        value = params.get(name)
        if value is not None and not _is_number(value):
            raise _unusable(name, value, "Use a number.")
    subsample = params.get("subsample", 1.0)
    if not _is_number(subsample) or not 0.0 < subsample <= 1.0:
        raise _unusable("subsample", subsample, "Use a number above 0 and at most 1.")
    if not 1.0 <= params.get("tweedie_variance_power", 1.5) < 2.0:
        raise _unusable(
            "tweedie_variance_power", params["tweedie_variance_power"], "Use a number of 1 or more and below 2."
        )
    levels = params.get("quantile_alpha", 0.5)
    for level in np.ravel(np.asarray(levels, dtype=object)):
        if not _is_number(level) or not 0.0 < level < 1.0:
            raise _unusable("quantile_alpha", levels, "Use a number between 0 and 1, or a list of them.")


def _is_whole(value: object) -> bool:
    # NumPy's integers are no int, and a bool is one.
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _unusable(name: str, value: object, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"reading parameter {name!r}", f"found {value!r}", advice)

"""Which labels an objective can learn from, checked on the profile of a whole dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.profile import Profile
from shardfit.profile.labels import check_label_range, check_two_classes
from shardfit.trainer import TRAIN
from shardfit_lightgbm.metric_options import gains
from shardfit_lightgbm.objectives import ObjectiveFacts

Float32Array = npt.NDArray[np.float32]

_NOT_NEGATIVE = frozenset({"poisson", "tweedie"})
_SHARES = frozenset({"cross_entropy", "cross_entropy_lambda"})


def check_labels(facts: ObjectiveFacts, params: Mapping[str, Any], dataset: str, profile: Profile) -> None:
    """Check that labels can be learnt from, or, of an evaluation set, measured on.

    Args:
        facts: The objective.
        params: LightGBM's parameters.
        dataset: `train`, or the name of an evaluation set.
        profile: Of the whole dataset.

    Raises:
        InvalidValueError: One class only, or labels outside the range of the objective; names both and the dataset.
    """
    check_label_range(facts.name, dataset, profile, _wanted(facts, params, profile))
    if dataset == TRAIN and facts.classifies:
        check_two_classes(facts.name, dataset, profile)


def not_all_zero(values: Float32Array) -> Float32Array:
    """Return labels or weights as LightGBM accepts them: where each machine must have some, none has zeros alone.

    The first of those becomes the smallest float32 there is, which changes no gradient.

    Args:
        values: 0 or more; float32, shape [rows].
    """
    if values.any():
        return values
    changed = values.copy()
    changed[:1] = np.finfo(np.float32).tiny
    return changed


def _wanted(facts: ObjectiveFacts, params: Mapping[str, Any], profile: Profile) -> str | None:
    """Return what the labels must be, if they are not."""
    low, high, whole = profile.label_minimum, profile.label_maximum, math.isnan(profile.label_fraction)
    if facts.name == "binary":
        return None if whole and low >= 0 and high <= 1 else "0 or 1"
    if facts.classifies:
        return None if whole and low >= 0 and high < facts.classes else f"0, 1, ... {facts.classes - 1}"
    if facts.ranks:
        most = len(gains(params))
        return None if whole and low >= 0 and high < most else f"whole numbers from 0 to {most - 1}, or set label_gain"
    if facts.name in _SHARES:
        return None if low >= 0 and high <= 1 else "between 0 and 1"
    if facts.name == "gamma":
        return None if low > 0 else "more than 0"
    if facts.name in _NOT_NEGATIVE:
        return None if low >= 0 and high > 0 else "0 or more, and not all of them 0"
    return None

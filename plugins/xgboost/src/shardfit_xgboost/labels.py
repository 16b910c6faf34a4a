"""Which labels an objective can learn from, checked on the profile of a whole dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shardfit.profile import Profile
from shardfit.profile.labels import check_label_range, check_two_classes
from shardfit.trainer import TRAIN
from shardfit_xgboost.objectives import ObjectiveFacts

_SHARES = frozenset({"binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic"})
_COUNTS = frozenset({"count:poisson", "reg:tweedie"})
_LARGEST_EXPONENT = 31


def check_labels(facts: ObjectiveFacts, params: Mapping[str, Any], dataset: str, profile: Profile) -> None:
    """Check that labels can be learnt from, or, of an evaluation set, measured on.

    Args:
        facts: The objective.
        params: XGBoost's parameters.
        dataset: `train`, or the name of an evaluation set.
        profile: Of the whole dataset.

    Raises:
        InvalidValueError: One class only, or labels outside the range of the objective; names both and the dataset.
    """
    check_label_range(facts.name, dataset, profile, _wanted(facts, params, dataset, profile))
    if dataset == TRAIN and facts.classifies:
        check_two_classes(facts.name, dataset, profile)


def _wanted(facts: ObjectiveFacts, params: Mapping[str, Any], dataset: str, profile: Profile) -> str | None:
    """Return what the labels must be, if they are not."""
    low, high, whole = profile.label_minimum, profile.label_maximum, math.isnan(profile.label_fraction)
    if facts.name in _SHARES:
        return "between 0 and 1" if low < 0 or high > 1 else None
    if facts.classes:
        return f"0, 1, ... {facts.classes - 1}" if low < 0 or high >= facts.classes or not whole else None
    if facts.name == "rank:map":
        return "0 and 1" if low < 0 or high > 1 or not whole else None
    if facts.name == "rank:ndcg":
        return _wanted_relevance(bool(params.get("ndcg_exp_gain", True)), low, high, whole)
    # What else is measured on an evaluation set is up to its metrics.
    return _wanted_number(facts.name, low, high) if dataset == TRAIN else None


def _wanted_relevance(exponential: bool, low: float, high: float, whole: bool) -> str | None:
    if exponential and (low < 0 or high > _LARGEST_EXPONENT or not whole):
        return f"whole numbers from 0 to {_LARGEST_EXPONENT}, or 0 or more with ndcg_exp_gain=False"
    return "0 or more" if low < 0 else None


def _wanted_number(name: str | None, low: float, high: float) -> str | None:
    if name == "reg:tweedie" and high <= 0:
        # The logarithm of their mean, which training starts from, is infinite, and the gradients are no numbers.
        return "0 or more, and not all of them 0"
    if name in _COUNTS:
        return "0 or more" if low < 0 else None
    if name == "reg:gamma":
        return "more than 0" if low <= 0 else None
    if name == "reg:squaredlogerror":
        return "more than -1" if low <= -1 else None
    return None

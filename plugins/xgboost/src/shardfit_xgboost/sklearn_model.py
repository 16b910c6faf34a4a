"""A booster as a scikit-learn estimator of the xgboost package."""

from __future__ import annotations

from typing import Any

import xgboost as xgb

from shardfit_xgboost.model import XGBModel


def to_sklearn(model: XGBModel) -> Any:
    """Return a fitted `XGBRegressor`, `XGBClassifier` or `XGBRanker` whose predictions equal the booster's.

    Args:
        model: What a run gave.
    """
    estimator = _kind(model.objective)(missing=model.spec.missing)
    estimator.load_model(bytearray(model.raw))
    estimator.n_estimators = estimator.get_booster().num_boosted_rounds()
    return estimator


def _kind(objective: str) -> Any:
    if objective.startswith(("binary:", "multi:")):
        return xgb.XGBClassifier
    return xgb.XGBRanker if objective.startswith("rank:") else xgb.XGBRegressor

"""A booster as a scikit-learn estimator of the lightgbm package."""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import numpy as np

from shardfit_lightgbm.model import LightGBMModel


def to_sklearn(model: LightGBMModel) -> Any:
    """Return a fitted `LGBMRegressor`, `LGBMClassifier` or `LGBMRanker` whose predictions equal the booster's.

    Args:
        model: What a run gave.
    """
    kind = _kind(model.objective)
    booster = model.booster()
    estimator = kind(n_estimators=booster.current_iteration(), objective=model.objective or None)
    # What `fit` would leave; the package has no other way in.
    estimator._Booster = booster
    estimator._best_iteration = model.best_round + 1
    estimator._n_features = estimator._n_features_in = booster.num_feature()
    estimator._objective = model.objective or "custom"
    estimator._evals_result = {name: dict(metrics) for name, metrics in model.history.items()}
    estimator.fitted_ = True
    if kind is lgb.LGBMClassifier:
        classes = max(booster.num_model_per_iteration(), 2)
        estimator._n_classes, estimator._classes = classes, np.arange(classes)
        estimator._le = lgb.compat._LGBMLabelEncoder().fit(estimator._classes)
        estimator._class_map = {label: label for label in range(classes)}
    return estimator


def _kind(objective: str) -> Any:
    if objective in {"binary", "multiclass", "multiclassova"}:
        return lgb.LGBMClassifier
    return lgb.LGBMRanker if objective in {"lambdarank", "rank_xendcg"} else lgb.LGBMRegressor

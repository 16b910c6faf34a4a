"""XGBoost for shardfit: `XGBEstimator` and the trainer plugin behind it."""

from shardfit_xgboost.estimator import XGBEstimator, XGBScalingConfig
from shardfit_xgboost.lean_import import import_lean

# Before any module of this package can import the framework with more than a worker needs.
import_lean()

__all__ = ["XGBEstimator", "XGBScalingConfig"]

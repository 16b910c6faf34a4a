"""XGBoost for shardfit: `XGBEstimator` and the trainer plugin behind it."""

from shardfit_xgboost.estimator import XGBEstimator, XGBScalingConfig

__all__ = ["XGBEstimator", "XGBScalingConfig"]

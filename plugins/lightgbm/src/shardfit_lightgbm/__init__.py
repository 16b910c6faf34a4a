"""LightGBM for shardfit: `LightGBMEstimator` and the trainer plugin behind it."""

from shardfit_lightgbm.estimator import LightGBMEstimator, LightGBMScalingConfig

__all__ = ["LightGBMEstimator", "LightGBMScalingConfig"]

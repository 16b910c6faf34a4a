"""LightGBM for shardfit: `LightGBMEstimator` and the trainer plugin behind it."""

from shardfit_lightgbm.estimator import LightGBMEstimator, LightGBMScalingConfig
from shardfit_lightgbm.lean_import import import_lean

# Before any module of this package can import the framework with more than a worker needs.
import_lean()

__all__ = ["LightGBMEstimator", "LightGBMScalingConfig"]

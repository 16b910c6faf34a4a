"""Linear and logistic regression over all rows of a cluster, as scikit-learn estimators."""

from shardfit_sklearn.model import LinearModel

__all__ = ["LinearModel"]

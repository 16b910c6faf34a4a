"""A fitted model, and the scikit-learn estimator that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shardfit.errors import ArtifactCorruptError
from shardfit_sklearn.config import LinearConfig
from shardfit_sklearn.fitting import chances
from shardfit_sklearn.rows import feature_columns
from shardfit_sklearn.sums import linear_scores

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model. `to_sklearn()` gives the library's own object.

    Args:
        features: Columns, in the order of the coefficients.
        coefficients: One a feature.
        intercept: The constant term.
        config: What was asked for.
        iterations: Newton steps; 1 for normal equations.
        converged: Whether the tolerance was reached.
    """

    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    config: LinearConfig
    iterations: int
    converged: bool

    def to_sklearn(self) -> Any:
        """Return a fitted `LinearRegression`, `Ridge` or `LogisticRegression`."""
        from sklearn import linear_model

        config = self.config
        coefficients, constant = np.array(self.coefficients), np.array(self.intercept)
        if config.estimator == "linear":
            fitted = linear_model.LinearRegression(fit_intercept=config.fit_intercept)
        elif config.estimator == "ridge":
            fitted = linear_model.Ridge(alpha=config.alpha, fit_intercept=config.fit_intercept)
        else:
            options = {"fit_intercept": config.fit_intercept, "max_iter": config.max_iter, "tol": config.tol}
            fitted = linear_model.LogisticRegression(C=config.C, **options)
            fitted.classes_ = np.array([0, 1])
            fitted.n_iter_ = np.array([self.iterations], dtype=np.int32)
            coefficients, constant = coefficients[np.newaxis], constant[np.newaxis]
        fitted.coef_, fitted.intercept_ = coefficients, constant[()]
        fitted.n_features_in_ = len(self.features)
        fitted.feature_names_in_ = np.array(self.features, dtype=object)
        return fitted

    def predict(self, batch: pa.RecordBatch) -> pa.Array:
        """Return one float64 for each row: the value, or the chance of label 1; NaN where a value is missing."""
        columns = feature_columns(batch, self.features)
        scores = linear_scores(columns, np.array(self.coefficients), self.intercept, batch.num_rows)
        return pa.array(chances(scores) if self.config.estimator == "logistic" else scores)

    def files(self) -> dict[str, bytes]:
        """Return the file that holds the model: JSON, which keeps every bit."""
        return {MODEL_FILE: json.dumps(asdict(self), indent=1).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> LinearModel:
        """Return the model that `files` wrote.

        Raises:
            ArtifactCorruptError: The file is missing or cannot be read.
        """
        try:
            read = json.loads(files[MODEL_FILE])
            config = LinearConfig(**read.pop("config"))
            features, coefficients = (tuple(read.pop(name)) for name in ("features", "coefficients"))
            return cls(features, coefficients, config=config, **read)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactCorruptError("loading a linear model", repr(error), "Train or fetch it again.") from error

"""The parameters of the trainer `linear`: those of scikit-learn's estimators, under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit.names import nearest

ESTIMATORS = ("linear", "ridge", "logistic")


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """What is fitted.

    Args:
        estimator: `linear` (LinearRegression), `ridge` (Ridge) or `logistic` (LogisticRegression, labels 0 and 1).
        alpha: Penalty of `ridge`, 0 or more.
        C: Inverse penalty of `logistic`, above 0.
        fit_intercept: Whether there is a constant term, which is never penalised.
        max_iter: Most Newton steps of `logistic`, 1 or more.
        tol: `logistic` ends when no entry of the mean gradient is larger.
    """

    estimator: str = "ridge"
    alpha: float = 1.0
    C: float = field(default=1.0)
    fit_intercept: bool = True
    max_iter: int = 100
    tol: float = 1e-8

    @property
    def penalty(self) -> float:
        """What half the squared coefficients are multiplied by, beside the sum of the losses."""
        return {"linear": 0.0, "ridge": self.alpha, "logistic": 1.0 / self.C}[self.estimator]


def configure(params: Mapping[str, Any]) -> LinearConfig:
    """Return the configuration that `params` ask for.

    Raises:
        UnknownParameterError: A parameter does not exist.
        InvalidArgumentError: A value cannot be used.
    """
    known = [each.name for each in fields(LinearConfig)]
    for name in params:
        if name not in known:
            advice = f"Did you mean {near!r}?" if (near := nearest(name, known)) else f"There is: {', '.join(known)}."
            raise UnknownParameterError(f"reading parameter {name!r}", "the trainer has no such parameter", advice)
    config = LinearConfig(**params)
    _check("estimator", config.estimator, config.estimator in ESTIMATORS, f"one of {', '.join(ESTIMATORS)}")
    _check("alpha", config.alpha, _is_number(config.alpha) and config.alpha >= 0, "a number of 0 or more")
    _check("C", config.C, _is_number(config.C) and config.C > 0, "a number above 0")
    _check("tol", config.tol, _is_number(config.tol) and config.tol > 0, "a number above 0")
    whole = isinstance(config.max_iter, int) and not isinstance(config.max_iter, bool)
    _check("max_iter", config.max_iter, whole and config.max_iter >= 1, "a whole number of 1 or more")
    _check("fit_intercept", config.fit_intercept, isinstance(config.fit_intercept, bool), "true or false")
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0


def _check(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"reading parameter {name!r}", f"found {value!r}", f"Use {wanted}.")

"""What each objective starts from and is measured by: initial scores from exact sums over the whole table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
from shardfit.profile import Profile

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

Start = Literal["mean", "classes", "newton", "quantile", "zero", "half"]

_START: dict[str, tuple[Start, str]] = {
    "reg:squarederror": ("mean", "rmse"),
    "reg:squaredlogerror": ("newton", "rmsle"),
    "reg:logistic": ("mean", "rmse"),
    "reg:pseudohubererror": ("newton", "mphe"),
    "reg:absoluteerror": ("quantile", "mae"),
    "reg:quantileerror": ("quantile", "quantile"),
    "reg:gamma": ("mean", "gamma-nloglik"),
    "reg:tweedie": ("mean", "tweedie-nloglik"),
    "count:poisson": ("mean", "poisson-nloglik"),
    "binary:logistic": ("mean", "logloss"),
    "binary:logitraw": ("mean", "logloss"),
    "binary:hinge": ("zero", "error"),
    "multi:softmax": ("classes", "mlogloss"),
    "multi:softprob": ("classes", "mlogloss"),
    "rank:ndcg": ("zero", "ndcg"),
    "rank:map": ("zero", "map"),
    "rank:pairwise": ("zero", "ndcg"),
}


@dataclass(frozen=True)
class ObjectiveFacts:
    """What shardfit must know of an objective.

    Args:
        name: XGBoost's name, or None for a function of the user's.
        start: How the initial score follows from the data.
        default_metric: Name of the metric that XGBoost would use.
        classes: Number of classes of a multi-class objective, else 0.
        alpha: Levels of a quantile objective.
        slope: `huber_slope` of a pseudo-Huber objective.
    """

    name: str | None
    start: Start
    default_metric: str
    classes: int = 0
    alpha: tuple[float, ...] = (0.5,)
    slope: float = 1.0

    @property
    def ranks(self) -> bool:
        """Whether the objective needs query groups."""
        return bool(self.name and self.name.startswith("rank:"))

    @property
    def classifies(self) -> bool:
        """Whether labels are classes."""
        return bool(self.name and self.name.startswith(("binary:", "multi:")))

    @property
    def averages_leaves(self) -> bool:
        """Whether XGBoost replaces leaf values by quantiles, which it averages over workers."""
        return self.start == "quantile"

    @property
    def measured_on_margins(self) -> bool:
        """Whether `transform` wants raw scores; XGBoost's own predictions lose the probabilities of classes."""
        return self.name is None or self.classes > 0

    def transform(self, predictions: Float32Array) -> Float32Array:
        """Return what metrics are computed from.

        Args:
            predictions: float32, shape [rows] or [rows, outputs]; raw scores if `measured_on_margins`.
        """
        if self.classes:
            # Of a matrix without rows, XGBoost's predictions have one dimension.
            predictions = predictions.reshape(-1, self.classes)
            shifted = np.exp(predictions - predictions.max(axis=1, keepdims=True, initial=-np.inf))
            shares: Float32Array = shifted / shifted.sum(axis=1, keepdims=True)
            return shares
        if self.name == "binary:logitraw":
            probabilities: Float32Array = np.reciprocal(1 + np.exp(-predictions), dtype=np.float32)
            return probabilities
        return predictions

    def metric(self, params: Mapping[str, Any]) -> str:
        """Return the name of the default metric."""
        if self.name == "reg:tweedie":
            return f"tweedie-nloglik@{params.get('tweedie_variance_power', 1.5)}"
        return self.default_metric

    def metric_options(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what metrics need to know of the parameters."""
        options: dict[str, Any] = {}
        if "huber_slope" in params:
            options["huber_slope"] = float(params["huber_slope"])
        if "ndcg_exp_gain" in params:
            options["ndcg_exp_gain"] = bool(params["ndcg_exp_gain"])
        if self.name == "reg:quantileerror":
            options["quantile_alpha"] = self.alpha
        return options

    def terms(self, labels: Float32Array, weights: Float32Array | None) -> Float64Array:
        """Return what is to be summed over all rows: float64, shape [rows, terms]; the last term is the weight."""
        weight = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
        if self.start == "mean":
            values = labels.reshape(len(labels), -1).astype(np.float64) * weight[:, None]
        elif self.start == "classes":
            values = (labels[:, None] == np.arange(self.classes)) * weight[:, None]
        elif self.start == "newton":
            values = self._newton_terms(labels.reshape(len(labels), -1).astype(np.float64)) * weight[:, None]
        else:
            values = np.empty((len(labels), 0))
        return np.column_stack([values, weight])

    def _newton_terms(self, labels: Float64Array) -> Float64Array:
        if self.name == "reg:pseudohubererror":
            scale = 1.0 + (labels / self.slope) ** 2
            return np.column_stack([-labels / np.sqrt(scale), 1.0 / (scale * np.sqrt(scale))])
        # Labels that have no logarithm are refused once the whole table is known.
        logs = np.log1p(np.maximum(labels, -0.999999))
        return np.column_stack([-logs, np.maximum(1.0 + logs, 1e-6)])

    def base_score(self, profile: Profile, labels: int) -> float | list[float]:
        """Return the initial score that the whole table gives, in the units of XGBoost's `base_score`.

        Args:
            profile: Of the whole training data.
            labels: Number of label columns.
        """
        *sums, weight = profile.totals
        if self.start == "mean":
            return _scalar([total / weight for total in sums])
        if self.start == "classes":
            return _centred_logs([total / weight for total in sums])
        if self.start == "newton":
            return _scalar([-g / h for g, h in zip(sums[:labels], sums[labels:], strict=True)])
        if self.start == "quantile":
            return _scalar([weighted_quantile(profile, output, q) for output in range(labels) for q in self.alpha])
        return 0.0 if self.start == "zero" else 0.5


def objective_facts(name: str | None, params: Mapping[str, Any]) -> ObjectiveFacts:
    """Return what shardfit must know of the objective `name`, or of a function of the user's where it is None.

    Raises:
        InvalidArgumentError: There is no such objective, or it lacks `num_class` or `quantile_alpha`.
    """
    if name is None:
        classes = int(params.get("num_class", 0))
        return ObjectiveFacts(None, "half", "merror" if classes else "rmse", classes)
    if name not in _START:
        raise InvalidArgumentError("reading objective", f"found {name!r}", f"Use one of {', '.join(sorted(_START))}.")
    start, metric = _START[name]
    classes = int(params.get("num_class", 0))
    if start == "classes" and classes < 2:
        raise InvalidArgumentError(
            f"using objective {name!r}", f"num_class is {params.get('num_class')!r}", "Set it to the number of classes."
        )
    if name == "reg:quantileerror" and "quantile_alpha" not in params:
        raise InvalidArgumentError(
            f"using objective {name!r}",
            "there is no quantile_alpha",
            "Set it to one level, or a list, between 0 and 1.",
        )
    levels = tuple(float(level) for level in np.ravel(params.get("quantile_alpha", 0.5)))
    slope = float(params.get("huber_slope", 1.0))
    return ObjectiveFacts(name, start, metric, classes if start == "classes" else 0, levels, slope)


def weighted_quantile(profile: Profile, output: int, level: float) -> float:
    """Return a weighted quantile of one label column, from the sample."""
    labels = profile.sample_labels[:, output]
    order = np.argsort(labels, kind="stable")
    heaviness = np.cumsum(profile.sample_weights[order], dtype=np.float64)
    position = int(np.searchsorted(heaviness, level * heaviness[-1], side="left"))
    return float(labels[order[min(position, len(order) - 1)]])


def _scalar(values: Sequence[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _centred_logs(shares: Sequence[float]) -> list[float]:
    logs = [math.log(max(share, 1e-16)) for share in shares]
    middle = math.fsum(logs) / len(logs)
    return [value - middle for value in logs]

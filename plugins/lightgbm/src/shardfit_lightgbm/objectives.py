"""What each objective starts from: LightGBM's own initial scores, from sums over the whole table.

LightGBM averages the initial scores of its machines, however many rows each has. Here the sums are exact and the same
at any number of workers. Formulas: `BoostFromScore` of LightGBM 4.7's objectives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.profile import Profile

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

Start = Literal["mean", "log-mean", "odds", "intensity", "shares", "class-odds", "quantile", "zero"]

_SMALL = 1e-15
_START: dict[str, Start] = {
    "regression": "mean",
    "regression_l1": "quantile",
    "huber": "mean",
    "fair": "mean",
    "poisson": "log-mean",
    "quantile": "quantile",
    "mape": "quantile",
    "gamma": "log-mean",
    "tweedie": "log-mean",
    "binary": "odds",
    "multiclass": "shares",
    "multiclassova": "class-odds",
    "cross_entropy": "odds",
    "cross_entropy_lambda": "intensity",
    "lambdarank": "zero",
    "rank_xendcg": "zero",
}
_ALIASES = {
    "regression": "regression_l2 l2 mean_squared_error mse l2_root root_mean_squared_error rmse",
    "regression_l1": "l1 mean_absolute_error mae",
    "mape": "mean_absolute_percentage_error",
    "multiclass": "softmax",
    "multiclassova": "multiclass_ova ova ovr",
    "cross_entropy": "xentropy",
    "cross_entropy_lambda": "xentlambda",
    "rank_xendcg": "xendcg xe_ndcg xe_ndcg_mart xendcg_mart",
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()} | {n: n for n in _START}


@dataclass(frozen=True)
class ObjectiveFacts:
    """What shardfit must know of an objective.

    Args:
        name: LightGBM's main name, or None for a function of the user's.
        start: How the initial score follows from the data.
        classes: Number of classes, 1 where there is one score a row.
        level: Which quantile of the labels `start` takes.
        sigmoid: LightGBM's parameter of that name.
        takes_root: LightGBM's parameter `reg_sqrt`.
    """

    name: str | None
    start: Start
    classes: int = 1
    level: float = 0.5
    sigmoid: float = 1.0
    takes_root: bool = False

    @property
    def ranks(self) -> bool:
        """Whether the objective needs query groups."""
        return self.name in {"lambdarank", "rank_xendcg"}

    @property
    def counts(self) -> bool:
        """Whether labels are 0 or more, and LightGBM wants some above 0 on each machine."""
        return self.name in {"poisson", "tweedie"}

    @property
    def classifies(self) -> bool:
        """Whether labels are classes."""
        return self.name in {"binary", "multiclass", "multiclassova"}

    @property
    def averages_leaves(self) -> bool:
        """Whether LightGBM replaces leaf values by quantiles, which it averages over machines."""
        return self.start == "quantile"

    @property
    def line(self) -> str:
        """What LightGBM writes of it into a model."""
        words = [str(self.name)]
        words += [f"num_class:{self.classes}"] if self.classes > 1 else []
        words += [f"sigmoid:{self.sigmoid:g}"] if self.name in {"binary", "multiclassova"} else []
        return " ".join([*words, *(["sqrt"] if self.takes_root else [])])

    def terms(self, labels: Float32Array, weights: Float32Array | None) -> Float64Array:
        """Return what is to be summed over all rows: float64, shape [rows, terms]; the last term is the weight."""
        weight = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
        values = labels.astype(np.float64)
        if self.name == "cross_entropy_lambda" and not (weight > 0).all():
            raise InvalidValueError(
                "learning with objective 'cross_entropy_lambda'", "found a weight of 0.0", "Leave such rows out."
            )
        if self.classes > 1:
            summed = (values[:, None] == np.arange(self.classes)) * weight[:, None]
        elif self.name == "binary":
            summed = ((values > 0) * weight)[:, None]
        else:
            taken = np.sign(values) * np.sqrt(np.abs(values)) if self.takes_root else values
            summed = (taken * weight)[:, None]
        return np.column_stack([summed, weight])

    def initial_scores(self, profile: Profile) -> tuple[float, ...]:
        """Return the raw score that every row starts from, one for each class.

        Args:
            profile: Of the whole training data.
        """
        *sums, weight = profile.totals
        if self.start == "zero":
            return ()
        if self.start == "quantile":
            return (_label_quantile(profile, self.level, by_size=self.name == "mape"),)
        means = [total / weight for total in sums]
        return tuple(self._score(mean) for mean in means)

    def _score(self, mean: float) -> float:
        if self.start == "mean":
            return mean
        if self.start == "log-mean":
            return math.log(mean) if mean > 0 else float("-inf")
        if self.start == "shares":
            return math.log(max(mean, _SMALL))
        if self.start == "intensity":
            return math.log(max(math.expm1(mean), _SMALL))
        share = min(max(mean, _SMALL), 1.0 - _SMALL)
        return math.log(share / (1.0 - share)) / self.sigmoid


def objective_facts(name: object, params: Mapping[str, Any]) -> ObjectiveFacts:
    """Return what shardfit must know of an objective.

    Args:
        name: One of LightGBM's names, or a function of the user's.
        params: LightGBM's parameters by their main names.

    Raises:
        InvalidArgumentError: There is no such objective, or it lacks `num_class`.
    """
    classes = int(params.get("num_class", 1))
    if callable(name):
        return ObjectiveFacts(None, "zero", classes)
    if not isinstance(name, str) or name not in _NAMES:
        raise InvalidArgumentError(
            "reading objective", f"found {name!r}", f"Use a function, or one of {', '.join(sorted(_START))}."
        )
    main = _NAMES[name]
    several = _START[main] in {"shares", "class-odds"}
    if several and classes < 2:
        raise InvalidArgumentError(
            f"using objective {name!r}", f"num_class is {params.get('num_class')!r}", "Set it to the number of classes."
        )
    if not several and classes > 1:
        raise InvalidArgumentError(f"using objective {name!r}", f"num_class is {classes!r}", "Leave num_class out.")
    level = float(params.get("alpha", 0.9)) if main == "quantile" else 0.5
    takes_root = main in {"regression", "fair"} and bool(params.get("reg_sqrt", False))
    sigmoid = float(params.get("sigmoid", 1.0)) if main in {"binary", "multiclassova"} else 1.0
    return ObjectiveFacts(main, _START[main], classes, level, sigmoid, takes_root)


def _label_quantile(profile: Profile, level: float, by_size: bool) -> float:
    """Return LightGBM's quantile of the sampled labels; of the labels themselves where the sample has every row."""
    labels = profile.sample_labels[:, 0].astype(np.float64)
    weights = profile.sample_weights.astype(np.float64)
    if by_size:
        weights = weights / np.maximum(1.0, np.abs(labels))
    order = np.argsort(labels, kind="stable")
    if (weights == weights[0]).all() and not by_size:
        return _plain_quantile(labels[order], level)
    return _weighted_quantile(labels[order], weights[order], level)


def _plain_quantile(labels: Float64Array, level: float) -> float:
    """`PercentileFun`: between the two values around the position, counted from the largest."""
    count = len(labels)
    place = (1.0 - level) * (count - 1)
    whole = int(place) + 1
    if count <= 1 or whole >= count:
        return float(labels[0])
    upper, lower = labels[count - whole], labels[count - whole - 1]
    return float(upper - (upper - lower) * (place - whole + 1))


def _weighted_quantile(labels: Float64Array, weights: Float64Array, level: float) -> float:
    """`WeightedPercentileFun`: where the cumulated weight passes the level, interpolated within heavy rows."""
    heaviness = np.cumsum(weights)
    threshold = level * heaviness[-1]
    place = min(int(np.searchsorted(heaviness, threshold, side="right")), len(labels) - 1)
    if place in (0, len(labels) - 1):
        return float(labels[place])
    below, here = labels[place - 1], labels[place]
    if heaviness[place] - heaviness[place - 1] >= 1.0:
        share = (threshold - heaviness[place - 1]) / (heaviness[place] - heaviness[place - 1])
        return float(share * (here - below) + below)
    return float(below)

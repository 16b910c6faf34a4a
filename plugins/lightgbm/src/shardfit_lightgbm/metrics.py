"""Metrics by LightGBM's names. All are the same bits at any number of workers, and LightGBM's own values to 1e-6."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit.metrics.contract import Metric
from shardfit.metrics.elementwise import AverageMetric, Loss, Rows, absolute_error, align_classes, squared_error
from shardfit_lightgbm import metric_losses as losses
from shardfit_lightgbm.metric_areas import Auc, AveragePrecision
from shardfit_lightgbm.metric_auc_mu import AucMu, check_plane, raw_scores, sigmoid_scores, softmax_scores
from shardfit_lightgbm.metric_options import gains, number, pair_weights, tops
from shardfit_lightgbm.metric_ranking import GroupedMap, GroupedNdcg
from shardfit_lightgbm.metric_totals import R2, GammaDeviance, cross_entropy_lambda

_Maker = Callable[[Mapping[str, Any]], tuple[Metric, ...]]

_ALIASES = {
    "l1": "mean_absolute_error mae regression_l1",
    "l2": "mean_squared_error mse regression_l2 regression",
    "rmse": "root_mean_squared_error l2_root",
    "mape": "mean_absolute_percentage_error",
    "ndcg": "lambdarank rank_xendcg xendcg xe_ndcg xe_ndcg_mart xendcg_mart",
    "map": "mean_average_precision",
    "binary_logloss": "binary",
    "multi_logloss": "multiclass softmax multiclassova multiclass_ova ova ovr",
    "cross_entropy": "xentropy",
    "cross_entropy_lambda": "xentlambda",
    "kullback_leibler": "kldiv",
}
_NO_METRIC = frozenset({"", "none", "null", "custom", "na"})
_ONLY_METRICS = frozenset(
    {
        "auc",
        "auc_mu",
        "average_precision",
        "binary_error",
        "gamma_deviance",
        "kullback_leibler",
        "map",
        "multi_error",
        "r2",
    }
)
_SIGMOIDS = frozenset({"multiclassova", "multiclass_ova", "ova", "ovr"})
_SOFTMAX = frozenset({"multiclass", "softmax"})


def metrics_named(name: str, params: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return the metrics that LightGBM evaluates for `name`, a metric's name or one of its aliases, in any case.

    Args:
        name: For example `"auc"`; `"ndcg"` and `"map"` give one metric for each place of `eval_at`, and `"None"` none.
        params: LightGBM's parameters: alpha, fair_c, tweedie_variance_power, eval_at, label_gain, multi_error_top_k and
            auc_mu_weights are read; auc_mu also needs the objective.

    Raises:
        UnknownParameterError: There is no such metric; names the nearest one.
        InvalidArgumentError: A parameter of the metric cannot be used.
    """
    wanted = name.strip().lower()
    if wanted in _NO_METRIC:
        return ()
    main = _NAMES.get(wanted)
    if main is None:
        nearest = get_close_matches(wanted, sorted(_NAMES), n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise UnknownParameterError(
            "choosing a metric", f"there is no {name!r}", f"{hint}There are {', '.join(sorted(_MAKERS))}."
        )
    return _MAKERS[main](params)


def default_metric(objective: str) -> str:
    """Return the name of the metric that LightGBM evaluates for an objective when none is given.

    Args:
        objective: A name or an alias; `"custom"` and `"none"` have no metric, named `""`.

    Raises:
        UnknownParameterError: There is no such objective.
    """
    wanted = objective.strip().lower()
    if wanted in _NO_METRIC:
        return ""
    main = _NAMES.get(wanted)
    if main is None or main in _ONLY_METRICS:
        raise UnknownParameterError("choosing a metric", f"there is no objective {objective!r}")
    # As an objective, rmse is another name of regression.
    return "l2" if main == "rmse" else main


def _plain(name: str, loss: Loss, finish: Callable[[float], float] = float) -> _Maker:
    return lambda _: (AverageMetric(name, loss, losses.align_rows, finish),)


def _shares(name: str, loss: Loss) -> _Maker:
    return lambda _: (AverageMetric(name, loss, losses.align_shares),)


def _with_alpha(name: str, loss: Callable[..., Rows]) -> _Maker:
    def make(params: Mapping[str, Any]) -> tuple[Metric, ...]:
        alpha = number(params, "alpha", 0.9, lambda value: value > 0, "Use a number above 0")
        return (AverageMetric(name, partial(loss, alpha=alpha), losses.align_rows),)

    return make


def _fair(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    c = number(params, "fair_c", 1.0, lambda value: value > 0, "Use a number above 0")
    return (AverageMetric("fair", partial(losses.fair_loss, c=c), losses.align_rows),)


def _tweedie(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    power = number(
        params, "tweedie_variance_power", 1.5, lambda value: 1 <= value < 2, "Use a number from 1 to below 2"
    )
    return (AverageMetric("tweedie", partial(losses.tweedie_loss, power=power), losses.align_rows),)


def _class_error(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    top = int(
        number(
            params,
            "multi_error_top_k",
            1,
            lambda value: value >= 1 and value == math.floor(value),
            "Use a whole number from 1",
        )
    )
    name = "multi_error" if top == 1 else f"multi_error@{top}"
    return (AverageMetric(name, partial(losses.class_error, top=top), align_classes),)


def _auc_mu(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    objective, weights = params.get("objective"), pair_weights(params)
    if callable(objective) or (isinstance(objective, str) and objective.lower() in _NO_METRIC):
        return (AucMu(raw_scores, weights),)
    if objective in _SIGMOIDS:
        return (AucMu(sigmoid_scores, weights),)
    if objective not in _SOFTMAX:
        raise InvalidArgumentError(
            "using 'auc_mu'", f"the objective is {objective!r}", "It needs 'multiclass' or 'multiclassova'."
        )
    check_plane(weights)
    return (AucMu(softmax_scores, weights),)


def _ndcg(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    of_label = gains(params)
    return tuple(GroupedNdcg(f"ndcg@{top}", top, of_label) for top in tops(params))


def _map(params: Mapping[str, Any]) -> tuple[Metric, ...]:
    return tuple(GroupedMap(f"map@{top}", top) for top in tops(params))


_MAKERS: dict[str, _Maker] = {
    "auc": lambda _: (Auc(),),
    "auc_mu": _auc_mu,
    "average_precision": lambda _: (AveragePrecision(),),
    "binary_error": _plain("binary_error", losses.binary_error),
    "binary_logloss": _plain("binary_logloss", losses.binary_log_loss),
    "cross_entropy": _shares("cross_entropy", losses.cross_entropy),
    "cross_entropy_lambda": lambda _: (cross_entropy_lambda(),),
    "fair": _fair,
    "gamma": lambda _: (AverageMetric("gamma", losses.gamma_loss, losses.align_positive),),
    "gamma_deviance": lambda _: (GammaDeviance(),),
    "huber": _with_alpha("huber", losses.huber_loss),
    "kullback_leibler": _shares("kullback_leibler", losses.kullback_leibler),
    "l1": _plain("l1", absolute_error),
    "l2": _plain("l2", squared_error),
    "map": _map,
    "mape": _plain("mape", losses.absolute_percentage_error),
    "multi_error": _class_error,
    "multi_logloss": lambda _: (AverageMetric("multi_logloss", losses.class_log_loss, align_classes),),
    "ndcg": _ndcg,
    "poisson": _plain("poisson", losses.poisson_loss),
    "quantile": _with_alpha("quantile", losses.quantile_loss),
    "r2": lambda _: (R2(),),
    "rmse": _plain("rmse", squared_error, math.sqrt),
    "tweedie": _tweedie,
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()} | {n: n for n in _MAKERS}

__all__ = ["default_metric", "metrics_named"]

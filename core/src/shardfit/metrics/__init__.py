"""Metrics by XGBoost's names. All are the same bits at any number of workers, in any order of the rows.

The bits are those of one kind of processor: NumPy's logarithms and exponentials may differ in the last place between
processors with and without AVX-512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit.metrics import elementwise as losses
from shardfit.metrics.area import PrecisionRecallArea, RocArea
from shardfit.metrics.contract import Metric, Reducer
from shardfit.metrics.custom import CustomMetric
from shardfit.metrics.early_stopping import EarlyStopping
from shardfit.metrics.elementwise import AverageMetric, align_classes, align_outputs, align_quantiles
from shardfit.metrics.ranking import DEFAULT_TOP, MeanAveragePrecision, Ndcg, Precision, RankingMetric

_NOT_OFFERED = ("aft-nloglik", "ams", "cox-nloglik", "interval-regression-accuracy")


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    base: str
    suffix: str
    huber_slope: float
    ndcg_exp_gain: bool
    quantile_alpha: tuple[float, ...]


_Maker = Callable[[_Request], Metric]


def metric_named(
    name: str,
    *,
    huber_slope: float = 1.0,
    ndcg_exp_gain: bool = True,
    quantile_alpha: tuple[float, ...] = (),
) -> Metric:
    """Return the metric that XGBoost knows under `name`, for example `"auc"`, `"error@0.7"` or `"ndcg@10-"`.

    Args:
        name: One of rmse, rmsle, mae, mape, mphe, logloss, error, error@t, poisson-nloglik, gamma-nloglik,
            gamma-deviance, tweedie-nloglik@power, quantile, merror, mlogloss, auc, aucpr, ndcg, map and pre; the last
            three with @k, and a final `-` where groups without a relevant row are to count 0 instead of 1.
        huber_slope: XGBoost's parameter of that name, for mphe.
        ndcg_exp_gain: XGBoost's parameter of that name, for ndcg.
        quantile_alpha: XGBoost's parameter of that name, for quantile; each in (0, 1).

    Raises:
        UnknownParameterError: There is no such metric, or it cannot be reduced over workers; names the nearest one.
        InvalidArgumentError: What follows the @, or one of the other arguments, cannot be used.
    """
    base, at, suffix = name.partition("@")
    if not at and base.removesuffix("-") in _RANKING:
        base, suffix = base.removesuffix("-"), base[len(base.removesuffix("-")) :]
    if at and not suffix.removesuffix("-"):
        raise _malformed(name, "A number must follow the @, as in ndcg@10 or error@0.7.")
    if base not in _MAKERS:
        raise _unknown(name, base)
    return _MAKERS[base](_Request(name, base, suffix, huber_slope, ndcg_exp_gain, tuple(quantile_alpha)))


def _unknown(name: str, base: str) -> UnknownParameterError:
    known = ", ".join(sorted(_MAKERS))
    if base in _NOT_OFFERED:
        return UnknownParameterError(
            "choosing a metric", f"{name!r} has no exact form over several workers", f"There are {known}."
        )
    nearest = get_close_matches(base, _MAKERS, n=1)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return UnknownParameterError("choosing a metric", f"there is no {name!r}", f"{hint}There are {known}.")


def _malformed(name: str, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError("choosing a metric", f"{name!r} cannot be used", advice)


def _plain(loss: losses.Loss, finish: Callable[[float], float] = float) -> _Maker:
    def make(request: _Request) -> Metric:
        _refuse_suffix(request)
        return AverageMetric(request.base, loss, align_outputs, finish)

    return make


def _multiclass(loss: losses.Loss) -> _Maker:
    def make(request: _Request) -> Metric:
        _refuse_suffix(request)
        return AverageMetric(request.base, loss, align_classes)

    return make


def _area(metric: type[RocArea] | type[PrecisionRecallArea]) -> _Maker:
    def make(request: _Request) -> Metric:
        _refuse_suffix(request)
        return metric()

    return make


def _ranking(metric: Callable[..., RankingMetric]) -> _Maker:
    def make(request: _Request) -> Metric:
        top = request.suffix.removesuffix("-")
        if top and not (top.isascii() and top.isdigit() and int(top) > 0):
            raise _malformed(
                request.name, "What follows the @ must be a whole number from 1, as in ndcg@10 or ndcg@10-."
            )
        gain = {"exponential_gain": request.ndcg_exp_gain} if metric is Ndcg else {}
        return metric(request.name, int(top or DEFAULT_TOP), 0.0 if request.suffix.endswith("-") else 1.0, **gain)

    return make


def _refuse_suffix(request: _Request) -> None:
    if request.suffix:
        raise _malformed(request.name, "This metric takes nothing after an @.")


def _error(request: _Request) -> Metric:
    threshold = _number(request, request.suffix or "0.5", "as in error@0.7")
    reported = "error" if threshold == 0.5 else f"error@{threshold:g}"
    return AverageMetric(reported, partial(losses.classification_error, threshold=threshold), align_outputs)


def _tweedie(request: _Request) -> Metric:
    power = _number(request, request.suffix, "as in tweedie-nloglik@1.5")
    if not 1 <= power < 2:
        raise _malformed(request.name, "The variance power after the @ must be from 1 to below 2.")
    reported = f"tweedie-nloglik@{power:g}"
    return AverageMetric(reported, partial(losses.tweedie_loss, power=power), align_outputs)


def _number(request: _Request, suffix: str, example: str) -> float:
    try:
        number = float(suffix)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _malformed(request.name, f"A number must follow the @, {example}.")
    return number


def _pseudo_huber(request: _Request) -> Metric:
    _refuse_suffix(request)
    if not (math.isfinite(request.huber_slope) and request.huber_slope):
        raise _malformed(request.name, f"huber_slope is {request.huber_slope!r} and must be a number other than 0.")
    return AverageMetric(request.base, partial(losses.pseudo_huber_error, slope=request.huber_slope), align_outputs)


def _quantile(request: _Request) -> Metric:
    _refuse_suffix(request)
    quantiles = request.quantile_alpha
    if not quantiles or not all(0 < quantile < 1 for quantile in quantiles):
        raise _malformed(request.name, f"quantile_alpha is {quantiles!r} and must be numbers between 0 and 1.")
    align = partial(align_quantiles, quantiles=len(quantiles))
    return AverageMetric(request.base, partial(losses.quantile_loss, quantiles=quantiles), align)


_RANKING: dict[str, _Maker] = {
    "map": _ranking(MeanAveragePrecision),
    "ndcg": _ranking(Ndcg),
    "pre": _ranking(Precision),
}
_MAKERS: dict[str, _Maker] = {
    "auc": _area(RocArea),
    "aucpr": _area(PrecisionRecallArea),
    "error": _error,
    "gamma-deviance": _plain(losses.gamma_deviance),
    "gamma-nloglik": _plain(losses.gamma_loss),
    "logloss": _plain(losses.log_loss),
    "mae": _plain(losses.absolute_error),
    "mape": _plain(losses.absolute_percentage_error),
    "merror": _multiclass(losses.multiclass_error),
    "mlogloss": _multiclass(losses.multiclass_log_loss),
    "mphe": _pseudo_huber,
    "poisson-nloglik": _plain(losses.poisson_loss),
    "quantile": _quantile,
    "rmse": _plain(losses.squared_error, math.sqrt),
    "rmsle": _plain(losses.squared_log_error, math.sqrt),
    "tweedie-nloglik": _tweedie,
    **_RANKING,
}

__all__ = ["CustomMetric", "EarlyStopping", "Metric", "Reducer", "metric_named"]

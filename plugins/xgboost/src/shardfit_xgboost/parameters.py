"""Which parameters XGBoost has, which of them shardfit sets itself, and which cannot be used with it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit_xgboost.numbers import check_numbers
from shardfit_xgboost.storage import STORAGE_PARAMETERS

ALIASES = {
    "eta": "learning_rate",
    "gamma": "min_split_loss",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "n_jobs": "nthread",
    "random_state": "seed",
    "num_boost_round": "n_estimators",
}

RUN_PARAMETERS = STORAGE_PARAMETERS | {
    "n_estimators",
    "early_stopping_rounds",
    "objective",
    "custom_metric",
    "callbacks",
}

BOOSTER_PARAMETERS = frozenset(
    {
        # general
        "booster verbosity nthread device seed seed_per_iteration disable_default_eval_metric",
        # trees
        "learning_rate min_split_loss max_depth min_child_weight max_delta_step subsample sampling_method",
        "colsample_bytree colsample_bylevel colsample_bynode reg_lambda reg_alpha tree_method scale_pos_weight",
        "grow_policy max_leaves max_bin num_parallel_tree monotone_constraints interaction_constraints",
        "multi_strategy max_cached_hist_node max_cat_to_onehot max_cat_threshold missing",
        # dart
        "sample_type normalize_type rate_drop one_drop skip_drop",
        # task
        "base_score eval_metric num_class tweedie_variance_power huber_slope quantile_alpha",
        "aft_loss_distribution aft_loss_distribution_scale lambdarank_pair_method lambdarank_num_pair_per_sample",
        "lambdarank_normalization lambdarank_score_normalization lambdarank_unbiased lambdarank_bias_norm",
        "ndcg_exp_gain expectile_alpha",
    }
)
_KNOWN = frozenset(" ".join(BOOSTER_PARAMETERS).split()) | RUN_PARAMETERS

_REFUSED_OBJECTIVES = {
    "survival:cox": "its risk sets span all rows and cannot be divided; use 'survival:aft'",
    "survival:aft": "its label bounds have no column role here; train on the logarithm of the time instead",
    "reg:linear": "it was renamed; use 'reg:squarederror'",
}


def check_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters under one name each, without those that are None.

    Raises:
        UnknownParameterError: A name that XGBoost does not have; suggests the nearest.
        InvalidArgumentError: A parameter is given under two names, or cannot be used with shardfit.
    """
    checked: dict[str, Any] = {}
    for given, value in params.items():
        name = ALIASES.get(given, given)
        if name not in _KNOWN:
            raise _unknown(given)
        if value is None:
            # The default, in scikit-learn's words. A `base_score` of None would be found by each worker for itself.
            continue
        if name in checked and checked[name] != value:
            raise InvalidArgumentError(
                f"reading parameter {given!r}", f"it is {value!r} and, under another name, {checked[name]!r}"
            )
        checked[name] = value
    _refuse(checked)
    check_numbers(checked)
    return checked


def _unknown(name: str) -> UnknownParameterError:
    near = get_close_matches(name, sorted(_KNOWN | ALIASES.keys()), n=1)
    advice = f"Did you mean {near[0]!r}?" if near else "See XGBoost's list of parameters."
    return UnknownParameterError(f"reading parameter {name!r}", "XGBoost has no such parameter", advice)


def _refuse(params: Mapping[str, Any]) -> None:
    method = params.get("tree_method", "hist")
    if method not in {"hist", "auto"}:
        raise _can_not("tree_method", method, "it needs every raw value at once; use 'hist', the default")
    if params.get("booster", "gbtree") not in {"gbtree", "dart"}:
        raise _can_not("booster", params["booster"], "linear boosters have no bins to stream into; use 'gbtree'")
    if params.get("sampling_method", "uniform") != "uniform":
        raise _can_not("sampling_method", params["sampling_method"], "rows are sampled by hash; use 'uniform'")
    if "device" in params:
        raise _can_not("device", params["device"], "the layout decides; use `use_gpu` of the scaling configuration")
    objective = params.get("objective")
    if isinstance(objective, str) and objective in _REFUSED_OBJECTIVES:
        raise _can_not("objective", objective, _REFUSED_OBJECTIVES[objective])


def _can_not(name: str, value: object, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"using parameter {name!r}", f"found {value!r}", f"It cannot be used here: {why}.")

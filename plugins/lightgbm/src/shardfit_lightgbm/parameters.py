"""Which parameters LightGBM has, which of them shardfit sets itself, and which cannot be used with it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit_lightgbm.library import parameter_aliases

# What the Python package of LightGBM calls these.
_MORE_ALIASES = {"custom_metric": (), "callbacks": (), "early_stopping_round": ("early_stopping_rounds",)}

RUN_PARAMETERS = frozenset(
    {
        "bagging_fraction",
        "bagging_freq",
        "bagging_seed",
        "boost_from_average",
        "callbacks",
        "custom_metric",
        "early_stopping_min_delta",
        "early_stopping_round",
        "first_metric_only",
        "metric",
        "num_iterations",
        "objective",
    }
)

_LAYOUT = "the layout decides; use the scaling configuration"
_BINS = "bins come from the profile of the whole table"
_COLUMNS = "columns have their parts by the arguments of `fit`, or the job's columns"
_FILES = "it is for LightGBM's command line"
_REFUSED = {
    "bin_construct_sample_cnt": _BINS,
    "categorical_feature": _COLUMNS,
    "config": _FILES,
    "convert_model": _FILES,
    "convert_model_language": _FILES,
    "data": _FILES,
    "data_random_seed": _BINS,
    "device_type": _LAYOUT,
    "enable_bundle": "features are not bundled, because bundles would depend on the sample",
    "feature_pre_filter": _BINS,
    "forcedbins_filename": _BINS,
    "forcedsplits_filename": "workers would each need the file; leave it out",
    "gpu_device_id": _LAYOUT,
    "gpu_device_id_list": _LAYOUT,
    "gpu_platform_id": _LAYOUT,
    "gpu_use_dp": _LAYOUT,
    "group_column": _COLUMNS,
    "header": _FILES,
    "ignore_column": _COLUMNS,
    "input_model": "use `resume_from`",
    "interaction_constraints": "LightGBM reads beyond its own memory with them on several machines; leave features out",
    "is_enable_sparse": "bins are stored densely; leave it out",
    "is_provide_training_metric": "name the training data as an evaluation set",
    "label_column": _COLUMNS,
    "linear_lambda": "linear trees need every raw value at once; leave linear_tree out",
    "local_listen_port": _LAYOUT,
    "machine_list_filename": _LAYOUT,
    "machines": _LAYOUT,
    "max_bin_by_feature": _BINS,
    "min_data_in_bin": _BINS,
    "num_gpu": _LAYOUT,
    "num_machines": _LAYOUT,
    "output_model": "use `artifact_stage_location`",
    "output_result": _FILES,
    "parser_config_file": _FILES,
    "pre_partition": _LAYOUT,
    "precise_float_parser": _FILES,
    "save_binary": _FILES,
    "snapshot_freq": "use `checkpoint_every_rounds`",
    "task": _FILES,
    "time_out": _LAYOUT,
    "two_round": _FILES,
    "valid": _FILES,
    "weight_column": _COLUMNS,
    "zero_as_missing": "turn such zeros into nulls in the data",
}
YES = (True, 1, "true", "1", "+")
_REFUSED_VALUES: dict[str, dict[object, str]] = {
    "boosting": {
        "rf": "each worker would draw its own rows; use 'gbdt' with bagging_fraction and bagging_freq",
        "random_forest": "each worker would draw its own rows; use 'gbdt' with bagging_fraction and bagging_freq",
    },
    "force_row_wise": dict.fromkeys(
        YES,
        "it is chosen where it is safe; elsewhere LightGBM would write beyond its memory",
    ),
    "linear_tree": dict.fromkeys(YES, "linear trees need every raw value at once; leave it out"),
    # With sockets of its own as well: where a leaf has no row on a machine, it sends what was left in memory.
    "use_quantized_grad": dict.fromkeys(
        YES, "LightGBM 4.7 adds up wrong histograms with it on several machines; leave it out"
    ),
    "tree_learner": {
        **dict.fromkeys(("feature", "feature_parallel"), "workers hold rows, not features; leave it out"),
        **dict.fromkeys(("voting", "voting_parallel"), "votes of workers depend on their number; leave it out"),
    },
}
_COUNTS = {"num_iterations": 1, "early_stopping_round": 0, "max_bin": 2, "num_class": 1, "bagging_freq": 0}


def check_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters under LightGBM's main name each, without those that are None.

    Raises:
        UnknownParameterError: A name that LightGBM does not have; suggests the nearest.
        InvalidArgumentError: A parameter is given under two names, or cannot be used with shardfit.
    """
    names = _main_names()
    checked: dict[str, Any] = {}
    for given, value in params.items():
        if given not in names:
            raise _unknown(given, names)
        if value is None:
            continue
        name = names[given]
        if name in checked and checked[name] != value:
            raise InvalidArgumentError(
                f"reading parameter {given!r}", f"it is {value!r} and, under another name, {checked[name]!r}"
            )
        checked[name] = value
        _refuse(given, name, value)
    _check_numbers(checked)
    return {name: value for name, value in checked.items() if name not in _REFUSED_VALUES or name == "boosting"}


def main_name(name: str) -> str:
    """Return LightGBM's main name of a parameter, or `name` itself where there is no such parameter."""
    return _main_names().get(name, name)


def _main_names() -> dict[str, str]:
    names = {}
    for main, aliases in [*parameter_aliases().items(), *_MORE_ALIASES.items()]:
        names.update(dict.fromkeys((main, *aliases), main))
    return names


def _unknown(name: str, names: Mapping[str, str]) -> UnknownParameterError:
    near = get_close_matches(name, sorted(names), n=1)
    advice = f"Did you mean {names[near[0]]!r}?" if near else "See LightGBM's list of parameters."
    return UnknownParameterError(f"reading parameter {name!r}", "LightGBM has no such parameter", advice)


def _refuse(given: str, name: str, value: object) -> None:
    why = _REFUSED.get(name)
    if why is None and isinstance(value, str | int):
        why = _REFUSED_VALUES.get(name, {}).get(value.lower() if isinstance(value, str) else value)
    if why is not None:
        raise InvalidArgumentError(f"using parameter {given!r}", f"found {value!r}", f"It cannot be used here: {why}.")


def _check_numbers(params: Mapping[str, Any]) -> None:
    for name, least in _COUNTS.items():
        value = params.get(name, least)
        whole = hasattr(value, "__index__") and not isinstance(value, bool)
        if not whole or value < least:
            raise _unusable(name, value, f"Use a whole number of {least} or more.")
    share = params.get("bagging_fraction", 1.0)
    if isinstance(share, bool) or not hasattr(share, "__float__") or not 0.0 < share <= 1.0:
        raise _unusable("bagging_fraction", share, "Use a number above 0 and at most 1.")
    delta = params.get("early_stopping_min_delta", 0.0)
    if isinstance(delta, bool) or not hasattr(delta, "__float__") or not delta >= 0.0:
        raise _unusable("early_stopping_min_delta", delta, "Use a number of 0 or more.")


def _unusable(name: str, value: object, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"reading parameter {name!r}", f"found {value!r}", advice)

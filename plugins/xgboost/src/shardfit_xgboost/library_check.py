"""What XGBoost itself says of the parameters, asked on the driver before any worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from shardfit.errors import InvalidArgumentError
from shardfit_xgboost.config import XGBConfig


def check_with_library(config: XGBConfig, features: Sequence[str]) -> None:
    """Let XGBoost read the parameters for a matrix of one row.

    Args:
        config: What will be trained with.
        features: Names of the features, which constraints may name.

    Raises:
        InvalidArgumentError: It refuses one; names the parameter, and says what XGBoost says. Or the name of a feature.
    """
    for name in features:
        if set(name) & set("[]<"):
            raise InvalidArgumentError(
                f"learning from column {name!r}", "XGBoost takes no '[', ']' or '<' in a name", "Rename the column."
            )
    row = np.zeros((1, len(features)), dtype=np.float32)
    matrix = xgb.DMatrix(row, label=np.zeros(1, dtype=np.float32), feature_names=list(features))
    params = dict(config.params)
    if (found := _refusal(params, matrix)) is None:
        return
    # XGBoost does not always say which parameter it means: it is the one without which the others are accepted.
    for name, value in params.items():
        if _refusal({other: params[other] for other in params if other != name}, matrix) is None:
            raise InvalidArgumentError(
                f"reading parameter {name!r}", f"found {value!r}; XGBoost says: {found}", "Correct or drop it."
            )
    raise InvalidArgumentError("reading the parameters", f"XGBoost says: {found}", "Correct what it names.")


def _refusal(params: Mapping[str, Any], matrix: xgb.DMatrix) -> str | None:
    try:
        # Reading the configuration back makes XGBoost complete it, which it puts off until the first round otherwise.
        xgb.Booster(dict(params), cache=[matrix]).save_config()
    except (xgb.core.XGBoostError, ValueError, TypeError) as error:
        return str(error).partition("Stack trace:")[0].strip().replace("\n", "; ").removesuffix(".")
    return None

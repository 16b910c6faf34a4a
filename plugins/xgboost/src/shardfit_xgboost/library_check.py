"""What XGBoost itself says of the parameters, asked on the driver before any worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from shardfit.errors import InvalidArgumentError
from shardfit.sparse import SparseRows
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.sparse_stream import as_csr


def check_with_library(config: XGBConfig, features: Sequence[str], sparse_features: int | None = None) -> None:
    """Let XGBoost read the parameters for a matrix of one row.

    Args:
        config: What will be trained with.
        features: Names of the features, which constraints may name.
        sparse_features: How many features a sparse column has, which have no names; None where features are dense.

    Raises:
        InvalidArgumentError: It refuses one; names the parameter, and says what XGBoost says. Or the name of a feature.
    """
    for name in features:
        if set(name) & set("[]<"):
            raise InvalidArgumentError(
                f"learning from column {name!r}", "XGBoost takes no '[', ']' or '<' in a name", "Rename the column."
            )
    matrix = _one_row(features, sparse_features)
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


def _one_row(features: Sequence[str], sparse_features: int | None) -> xgb.DMatrix:
    label = np.zeros(1, dtype=np.float32)
    if sparse_features is not None:
        return xgb.DMatrix(as_csr(SparseRows.nothing(1, sparse_features)), label=label)
    return xgb.DMatrix(np.zeros((1, len(features)), dtype=np.float32), label=label, feature_names=list(features))


def _refusal(params: Mapping[str, Any], matrix: xgb.DMatrix) -> str | None:
    try:
        # Reading the configuration back makes XGBoost complete it, which it puts off until the first round otherwise.
        xgb.Booster(dict(params), cache=[matrix]).save_config()
    except (xgb.core.XGBoostError, ValueError, TypeError) as error:
        return str(error).partition("Stack trace:")[0].strip().replace("\n", "; ").removesuffix(".")
    return None

"""What LightGBM itself says of the parameters, asked on the driver before any worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np

from shardfit.errors import InvalidArgumentError
from shardfit_lightgbm.config import LightGBMConfig

_ROWS = 64
# LightGBM says so of all but the last, which breaks its JSON as what cannot be printed does.
_FORBIDDEN = frozenset('"[]{}:,\\')


def check_with_library(config: LightGBMConfig, features: Sequence[str]) -> None:
    """Let LightGBM read the parameters for a few rows.

    Args:
        config: What will be trained with.
        features: Names of the features.

    Raises:
        InvalidArgumentError: It refuses one, or the name of a feature; says what LightGBM says.
    """
    for name in features:
        if _FORBIDDEN & set(name) or not name.isprintable() or not name:
            raise InvalidArgumentError(
                f"learning from column {name!r}",
                f"LightGBM takes none of {''.join(sorted(_FORBIDDEN))} in a name, and nothing that cannot be printed",
                "Rename it.",
            )
    params = dict(config.params)
    rows = np.tile(np.arange(_ROWS, dtype=np.float64)[:, None], (1, len(features)))
    if (found := _refusal(params, config, rows, features)) is None:
        return
    # LightGBM does not always say which parameter it means: it is the one without which the others are accepted.
    for name, value in params.items():
        if name != "objective" and _refused_but_for(name, params, config, rows, features):
            raise InvalidArgumentError(
                f"reading parameter {name!r}", f"found {value!r}; LightGBM says: {found}", "Correct or drop it."
            )
    raise InvalidArgumentError("reading the parameters", f"LightGBM says: {found}", "Correct what it names.")


def _refused_but_for(
    name: str, params: Mapping[str, Any], config: LightGBMConfig, rows: np.ndarray[Any, Any], features: Sequence[str]
) -> bool:
    return _refusal({n: v for n, v in params.items() if n != name}, config, rows, features) is None


def _refusal(
    params: Mapping[str, Any], config: LightGBMConfig, rows: np.ndarray[Any, Any], features: Sequence[str]
) -> str | None:
    labels = np.arange(_ROWS) % max(config.objective.classes, 2)
    groups = [_ROWS] if config.objective.ranks else None
    try:
        data = lgb.Dataset(
            rows, labels + float(config.objective.name == "gamma"), group=groups, feature_name=list(features)
        )
        lgb.Booster(dict(params), data)
    except (lgb.basic.LightGBMError, ValueError, TypeError) as error:
        return str(error).strip().replace("\n", "; ").removesuffix(".")
    return None

"""A `MatrixSpec` beside a saved model: plain values that JSON holds, and what must not differ when training goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.casts import CategoryMap, ColumnCast
from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidArgumentError
from shardfit.matrix_reader import MatrixSpec


def spec_to_values(spec: MatrixSpec) -> dict[str, Any]:
    """Return what is needed to predict later as plain values: columns, casts, categories, max_bin, missing."""
    casts = dict(zip(spec.roles.all, spec.casts, strict=True))
    return {
        "features": list(spec.roles.features),
        "label": list(spec.roles.label),
        "base_margin": list(spec.roles.base_margin),
        "casts": [
            {"name": cast.name, "arrow_type": cast.arrow_type, "rule": cast.rule}
            | ({"features": cast.features} if cast.features else {})
            for cast in map(casts.__getitem__, known_roles(spec.roles).all)
        ],
        "categories": {name: json.loads(known.to_json()) for name, known in spec.categories.items()},
        "max_bin": spec.max_bin,
        "missing": None if np.isnan(spec.missing) else spec.missing,
    }


def spec_from_values(read: Mapping[str, Any]) -> MatrixSpec:
    """Return the spec that `spec_to_values` wrote.

    Raises:
        KeyError, TypeError, ValueError: It was written otherwise.
    """
    casts = tuple(ColumnCast(**cast) for cast in read["casts"])
    features, label, margins = (tuple(read[name]) for name in ("features", "label", "base_margin"))
    roles = ColumnRoles(features, label, base_margin=margins, categorical=tuple(read["categories"]))
    maps = {name: CategoryMap.from_json(json.dumps(known)) for name, known in read["categories"].items()}
    missing = float("nan") if read["missing"] is None else read["missing"]
    return MatrixSpec(roles, casts, maps, read["max_bin"], missing)


def known_roles(roles: ColumnRoles) -> ColumnRoles:
    """Return the roles that matter after training."""
    return ColumnRoles(roles.features, roles.label, base_margin=roles.base_margin, categorical=roles.categorical)


def check_same(what: str, asked: object, found: object) -> None:
    """Check that a run that goes on asks for what its checkpoint has.

    Raises:
        InvalidArgumentError: It does not; says both.
    """
    if asked != found:
        raise InvalidArgumentError(
            f"resuming with {what} {asked!r}", f"the checkpoint has {found!r}", "Use the same as in the earlier run."
        )


def check_same_roles(roles: ColumnRoles, spec: MatrixSpec) -> None:
    """Check that a run that goes on has the columns of its checkpoint. Called on the driver.

    Args:
        roles: Of the run.
        spec: Of the checkpoint.

    Raises:
        InvalidArgumentError: Features, initial scores or categorical columns differ.
    """
    check_same("features", list(roles.features), list(spec.roles.features))
    check_same("base_margin_col", list(roles.base_margin), list(spec.roles.base_margin))
    check_same("categorical_cols", sorted(roles.categorical), sorted(spec.roles.categorical))


def check_same_width(spec: MatrixSpec, earlier: MatrixSpec) -> None:
    """Check that sparse features are as many as they were. Called on every worker, after the profile.

    Args:
        spec: Of the run.
        earlier: Of the checkpoint.

    Raises:
        InvalidArgumentError: They are more or fewer.
    """
    if (asked := spec.sparse_features) != (found := earlier.sparse_features):
        raise InvalidArgumentError(
            f"resuming with {asked} sparse features",
            f"the checkpoint has {found}",
            "Say how many there are, with features= or in the metadata of the column's field.",
        )


def check_same_categories(spec: MatrixSpec, earlier: MatrixSpec) -> None:
    """Check that each category has the code that it had. Called on every worker, after the profile.

    Args:
        spec: Of the run.
        earlier: Of the checkpoint.

    Raises:
        InvalidArgumentError: The data has other categories, so that the codes in the trees would mean others.
    """
    for name, categories in spec.categories.items():
        known = earlier.categories.get(name)
        if known is None or known.values == categories.values:
            continue
        more = sorted(set(map(str, categories.values)) ^ set(map(str, known.values)))
        raise InvalidArgumentError(
            f"resuming with the categorical column {name!r}",
            f"the data has {len(categories)} categories, the checkpoint {len(known)}; {more[:5]!r} are in one only",
            "Resume on data with the same categories, or train from the beginning.",
        )


def check_rounds(asked: int, done: int) -> None:
    """Check that a checkpoint has no more rounds than are asked for.

    Raises:
        InvalidArgumentError: It has.
    """
    if done > asked:
        raise InvalidArgumentError(
            f"resuming up to n_estimators={asked}",
            f"the checkpoint has {done} rounds",
            "n_estimators counts the rounds of the checkpoint too: raise it.",
        )


def predictions_as_arrow(predictions: npt.NDArray[np.floating[Any]]) -> pa.Array:
    """Return predictions as an Arrow array: floats, or fixed-size lists of floats for several outputs.

    Args:
        predictions: float32 or float64, shape [rows] or [rows, outputs].
    """
    if predictions.ndim == 1:
        return pa.array(predictions)
    flat = pa.array(np.ascontiguousarray(predictions).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, predictions.shape[1])


__all__ = [
    "check_rounds",
    "check_same",
    "check_same_categories",
    "check_same_roles",
    "check_same_width",
    "known_roles",
    "predictions_as_arrow",
    "spec_from_values",
    "spec_to_values",
]

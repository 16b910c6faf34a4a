"""Which column plays which part in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import pyarrow as pa

from shardfit.errors import UnknownColumnError


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The part that each column plays.

    Args:
        features: Columns to learn from, in the order in which the model has them. Empty means every column that has
            no other role, in the order of the schema.
        label: Columns to predict; more than one for multi-output models.
        weight: Column of sample weights, or None.
        group: Column whose equal, adjacent values make a query group, or None.
        base_margin: Columns of initial predictions.
        categorical: Those of `features` that hold categories.
    """

    features: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    weight: str | None = None
    group: str | None = None
    base_margin: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """Columns with a role other than feature."""
        single = [name for name in (self.weight, self.group) if name is not None]
        return (*self.label, *single, *self.base_margin)

    @property
    def all(self) -> tuple[str, ...]:
        """Every column to read: features first, then label, weight, group and base margin."""
        return tuple(dict.fromkeys((*self.features, *self.others)))

    def resolve(self, schema: pa.Schema) -> ColumnRoles:
        """Return the roles with `features` filled in, checked against a schema.

        Raises:
            UnknownColumnError: A name is not in the schema, is there twice, or is given twice; or a categorical column
                is no feature; or a feature is also the label or the weight; or there is no feature.
        """
        features = self.features or tuple(name for name in schema.names if name not in self.others)
        resolved = replace(self, features=features)
        for name in (*resolved.features, *resolved.others):
            check_column(name, schema)
        for what, names in (("input_cols", features), ("label_col", self.label), ("base_margin_col", self.base_margin)):
            _check_unique(what, names)
        if not features:
            raise UnknownColumnError(
                "reading input_cols", "no column is left to learn from", "Every column of the dataset has another role."
            )
        if stray := set(self.categorical) - set(features):
            raise UnknownColumnError(
                "reading categorical_cols",
                f"{sorted(stray)!r} are not among the features",
                "Add them to input_cols, or leave them out here.",
            )
        overlap = set(features) & {*self.label, self.weight}
        if overlap:
            raise UnknownColumnError(
                "reading input_cols",
                f"{sorted(overlap)!r} are also label or weight",
                "A column cannot be learnt from and predicted at once.",
            )
        return resolved


def check_column(name: str, schema: pa.Schema) -> None:
    """Check that a schema has exactly one column of a name.

    Raises:
        UnknownColumnError: It has none, and the nearest name is suggested; or it has several.
    """
    found = len(schema.get_all_field_indices(name))
    if found == 1:
        return
    if found:
        raise UnknownColumnError(
            f"reading column {name!r}", f"the dataset has {found} columns of that name", "Rename them."
        )
    near = get_close_matches(name, schema.names, n=1)
    names = ", ".join(map(repr, schema.names[:30]))
    advice = f"Did you mean {near[0]!r}?" if near else f"It has {names}."
    raise UnknownColumnError(f"reading column {name!r}", "the dataset has no such column", advice)


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UnknownColumnError(f"reading {what}", f"{name!r} is named twice", "Name each column once.")
        seen.add(name)

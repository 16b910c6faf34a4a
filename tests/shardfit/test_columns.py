"""Roles of columns are checked against the schema before anything is read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from shardfit.columns import ColumnRoles
from shardfit.errors import UnknownColumnError

SCHEMA = pa.schema([(name, pa.float64()) for name in ("price", "size", "city", "y", "w", "g", "m")])
TWICE = pa.schema([("price", pa.float64()), ("price", pa.int32()), ("y", pa.float64())])


def test_without_features_every_column_without_another_role_is_one_in_the_order_of_the_schema() -> None:
    roles = ColumnRoles(label=("y",), weight="w", group="g", base_margin=("m",)).resolve(SCHEMA)
    assert roles.features == ("price", "size", "city")
    assert roles.all == ("price", "size", "city", "y", "w", "g", "m")


def test_features_keep_the_order_that_they_are_given_in() -> None:
    assert ColumnRoles(features=("size", "price"), label=("y",)).resolve(SCHEMA).features == ("size", "price")


def test_a_column_with_two_roles_is_read_once() -> None:
    assert ColumnRoles(features=("g", "price"), label=("y",), group="g").resolve(SCHEMA).all == ("g", "price", "y")


@pytest.mark.parametrize(
    ("roles", "schema", "found"),
    [
        (
            {"features": ("prize",)},
            SCHEMA,
            "reading column 'prize': the dataset has no such column. Did you mean 'price'?",
        ),
        ({"features": ("qqqq",)}, SCHEMA, "It has 'price', 'size', 'city', 'y', 'w', 'g', 'm'."),
        ({"label": ("target",)}, SCHEMA, "reading column 'target'"),
        ({"weight": "weights"}, SCHEMA, "reading column 'weights'"),
        ({"group": "query"}, SCHEMA, "reading column 'query'"),
        ({"base_margin": ("margin",)}, SCHEMA, "reading column 'margin'"),
        ({"features": ("price",), "label": ("y",)}, TWICE, "the dataset has 2 columns of that name"),
        ({"label": ("y",)}, TWICE, "the dataset has 2 columns of that name"),
        ({"features": ("price", "price")}, SCHEMA, "reading input_cols: 'price' is named twice"),
        ({"label": ("y", "y")}, SCHEMA, "reading label_col: 'y' is named twice"),
        ({"base_margin": ("m", "m")}, SCHEMA, "reading base_margin_col: 'm' is named twice"),
        ({"features": ("price",), "categorical": ("city",)}, SCHEMA, "['city'] are not among the features"),
        ({"features": ("price", "y"), "label": ("y",)}, SCHEMA, "['y'] are also label or weight"),
        ({"features": ("price", "w"), "weight": "w"}, SCHEMA, "['w'] are also label or weight"),
        ({"label": ("y",)}, pa.schema([("y", pa.float64())]), "no column is left to learn from"),
    ],
)
def test_roles_that_do_not_fit_the_schema_are_refused(roles: dict[str, Any], schema: pa.Schema, found: str) -> None:
    with pytest.raises(UnknownColumnError) as caught:
        ColumnRoles(**roles).resolve(schema)
    assert found in str(caught.value)

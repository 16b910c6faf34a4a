"""By rows or by columns: what is chosen, and that the plan has counted the memory for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.data_shape import DataShape
from shardfit.profile import Profile, SampleSpec
from shardfit.profile.samples import DistinctValues
from shardfit_lightgbm.config import configure
from shardfit_lightgbm.direction import direction
from shardfit_lightgbm.memory import estimate_memory

ROWS = 1_000_000


def profile_of(features: int, distinct: int) -> Profile:
    """Return what is known of features with so many distinct values each."""
    values = DistinctValues(np.arange(min(distinct, 1024), dtype=np.float32), 1024, complete=distinct <= 1024)
    return replace(Profile.empty(features, 1, 0, SampleSpec(0, 1.0)), distinct=(values,) * features)


@given(st.integers(1, 200), st.integers(1, 2_000), st.sampled_from([7, 63, 255, 1_000]), st.booleans())
def test_the_plan_has_counted_the_copy_that_summing_by_rows_takes(
    features: int, distinct: int, max_bin: int, by_columns: bool
) -> None:
    params = {"max_bin": max_bin, **({"force_col_wise": True} if by_columns else {})}
    config = configure(params)
    chosen = direction(config.params, config.max_bin, profile_of(features, distinct))
    planned = {part.name: part.bytes for part in estimate_memory(config, DataShape(ROWS, ROWS, features))}
    if chosen.get("force_row_wise"):
        assert planned["laid out by rows"] == planned["matrix"]
    assert "laid out by rows" not in planned or not by_columns


def test_few_bins_are_summed_up_by_rows_and_many_by_columns() -> None:
    params, many = configure({}).params, 100_000
    assert direction(params, 255, profile_of(64, many)) == {"force_row_wise": True}
    assert direction(params, 255, profile_of(65, many)) == {"force_col_wise": True}
    assert direction(params, 255, profile_of(28, 4)) == {"force_col_wise": True}
    for word in ("true", "True", "+", 1):
        assert direction({"force_col_wise": word}, 255, profile_of(28, many)) == {"force_col_wise": True}
    # A text that is true to Python; LightGBM would measure what is faster.
    assert direction({"force_col_wise": "false"}, 255, profile_of(28, many)) == {"force_row_wise": True}


@pytest.mark.parametrize(
    ("params", "copies"),
    [
        ({}, 1.0),
        ({"feature_fraction": 0.5}, 1.5),
        ({"feature_fraction": 0.6}, 1.0),
        ({"data_sample_strategy": "goss"}, 1.6),
        ({"boosting": "goss", "top_rate": 0.4, "other_rate": 0.1, "force_col_wise": True}, 0.5),
        # LightGBM points at the rows that it draws where they are many.
        ({"boosting": "goss", "top_rate": 0.4, "other_rate": 0.2}, 1.0),
        ({"bagging_freq": 1, "pos_bagging_fraction": 0.3, "neg_bagging_fraction": 0.4, "force_col_wise": True}, 0.4),
        # One of the classes may have few rows.
        ({"bagging_freq": 1, "pos_bagging_fraction": 0.3, "force_col_wise": True}, 0.5),
        ({"bagging_freq": 1, "pos_bagging_fraction": 0.6, "force_col_wise": True}, 0.0),
        ({"bagging_freq": 2, "bagging_by_query": True, "force_col_wise": True}, 1.0),
        # These are drawn by shardfit, which gives the others a weight of 0.
        ({"bagging_freq": 1, "bagging_fraction": 0.3}, 1.0),
    ],
)
def test_the_plan_counts_what_lightgbm_copies_of_the_bins(params: dict[str, object], copies: float) -> None:
    planned = {part.name: part.bytes for part in estimate_memory(configure(params), DataShape(ROWS, ROWS, 28))}
    copied = sum(planned.get(name, 0) for name in ("laid out by rows", "drawn columns", "drawn rows"))
    assert copied == pytest.approx(copies * planned["matrix"])

"""Every matrix is binned by the chosen cut points, and predicts as a plain one does, whatever the sample has missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from shardfit.binned_trainer import BinReference
from shardfit.casts import plan_casts
from shardfit.columns import ColumnRoles
from shardfit.matrix_reader import MatrixReader
from shardfit.profile import SampleSpec
from shardfit.profile.shard import ProfileRequest, profile_shard
from shardfit.shard_plan import World
from shardfit.shard_reader import ShardReader
from shardfit.sharding.rows import shard_by_rows
from shardfit.sources.arrow import ArrowSource
from shardfit_xgboost.config import configure
from shardfit_xgboost.matrix import ingest, open_reference
from shardfit_xgboost.trainer import XGBTrainer

Column = npt.NDArray[Any]
ROWS = 3_000
random = np.random.default_rng(11)
NORMAL = random.normal(size=ROWS)
# Row 1,234 is not in the sample of seed 0: what is there only minimum, maximum and distinct values can know.
ROW = 1_234
assert not SampleSpec(0, 0.05, 1).keeps(np.array([ROW]))[0]


@dataclass(frozen=True)
class Binned:
    """Training data in every form, and a booster trained on the binned one."""

    reference: BinReference
    library: Any
    training: Any
    booster: Any
    names: Sequence[str]

    def matrix(self, columns: Mapping[str, Any]) -> Any:
        return ingest(reader_of(columns, self.reference), self.library, 1).data

    def plain(self, columns: Mapping[str, Any]) -> Any:
        spec = self.reference.spec
        types = ["c" if cast.rule == "category" else "q" for cast in spec.feature_casts]
        features = np.concatenate([b.features for b in reader_of(columns, self.reference).batches()])
        return xgb.DMatrix(features, feature_names=list(self.names), feature_types=types, enable_categorical=True)

    def cuts(self, matrix: Any) -> list[Column]:
        offsets, values = matrix.get_quantile_cut()
        return [values[start:stop] for start, stop in pairwise(offsets.tolist())]


def shard_of(columns: Mapping[str, Any]) -> ShardReader:
    source = ArrowSource(pa.table(columns), fragment_rows=700)
    fragments = source.fragments()
    (shard,) = shard_by_rows(fragments, World(1)).shards(fragments)
    return ShardReader("train", source, shard, tuple(columns), 512)


def reader_of(columns: Mapping[str, Any], reference: BinReference) -> MatrixReader:
    rows = len(next(iter(columns.values())))
    return MatrixReader(shard_of({**columns, "label": columns.get("label", np.zeros(rows))}), reference.spec)


def binned(
    columns: Mapping[str, Any], label: Column, max_bin: int, fraction: float = 0.05, seed: int = 0, rounds: int = 8
) -> Binned:
    """Profile, choose cut points, bin and boost; text columns are categorical."""
    names = tuple(columns)
    everything = {**columns, "label": label}
    categorical = tuple(name for name in names if pa.types.is_string(pa.array(columns[name]).type))
    roles = ColumnRoles(names, ("label",), categorical=categorical)
    casts = plan_casts(pa.table(everything).schema, roles.all, categorical)
    config, trainer = configure({"max_bin": max_bin}), XGBTrainer()
    spec = SampleSpec(seed, fraction, 2 * max_bin)
    request = ProfileRequest(roles, casts, config.missing, trainer.terms(config, roles), {"train": spec})
    profile = profile_shard(shard_of(everything), trainer, config, request, with_terms=True)
    reference = BinReference.from_profile(profile, roles, casts, max_bin, config.missing, {})
    library = open_reference(reference)
    training = ingest(reader_of(everything, reference), library, 1).data
    params = {"max_bin": max_bin, "tree_method": "hist", "max_depth": 8, "min_child_weight": 0, "reg_lambda": 0}
    booster = xgb.train({**params, "base_score": 0.0, "nthread": 1}, training, rounds)
    return Binned(reference, library, training, booster, names)


def with_missing(values: Column, share: float) -> pa.Array:
    mask = np.random.default_rng(3).random(len(values)) < share
    mask[ROW] = False
    return pa.array(values.astype(np.float64), mask=mask)


def outlier(values: Column, row: int, value: float) -> Column:
    changed = values.copy()
    changed[row] = value
    return changed


COLUMNS: dict[str, Mapping[str, Any]] = {
    "one column": {"a": NORMAL},
    "a value far above the sample": {"a": outlier(NORMAL, ROW, 1e6)},
    "a value far below the sample": {"a": outlier(NORMAL, ROW, -1e6)},
    "far above, with missing values": {"a": with_missing(outlier(NORMAL, ROW, 1e6), 0.3), "b": NORMAL[::-1].copy()},
    "a rare value": {"a": outlier(np.zeros(ROWS), ROW, 3.0)},
    "a rare value beside many": {"a": np.where(np.arange(ROWS) % 100 == 7, NORMAL, 0.0)},
    "a column missing in the sample": {"a": pa.array(outlier(NORMAL, 0, 0), mask=np.arange(ROWS) != ROW), "b": NORMAL},
    "a column that is all missing": {"a": pa.nulls(ROWS, pa.float64()), "b": NORMAL},
    "nothing but a column that is all missing": {"a": pa.nulls(ROWS, pa.float64())},
    "a constant": {"a": np.full(ROWS, 2.5), "b": NORMAL},
    "a constant with missing values": {"a": with_missing(np.full(ROWS, -2.5), 0.4), "b": NORMAL},
    "nothing but a constant": {"a": np.zeros(ROWS)},
    "a category in one row": {"a": np.where(np.arange(ROWS) == ROW, "zz", np.where(NORMAL > 0, "p", "n"))},
    "more categories than bins": {"a": np.char.add("c", (np.arange(ROWS) % 700).astype(str)), "b": NORMAL},
    "categories and missing values": {
        "a": pa.array(np.where(NORMAL > 0, "p", "n"), mask=random.random(ROWS) < 0.2),
        "b": with_missing(NORMAL, 0.1),
    },
    "whole numbers": {"a": random.integers(-3, 4, ROWS), "b": random.integers(0, 10**6, ROWS)},
    "tiny and huge": {"a": np.exp(NORMAL * 20), "b": -np.exp(NORMAL * 15)},
    "both zeros and subnormals": {"a": np.where(NORMAL > 1, 1e-42, np.where(NORMAL > 0, 0.0, -0.0))},
}


# The row of interest stands out, so that a tree wants to split it off.
LABEL = outlier(NORMAL + np.arange(ROWS) / ROWS, ROW, 100.0)


@cache
def binned_case(name: str, max_bin: int) -> Binned:
    return binned(COLUMNS[name], LABEL, max_bin)


@pytest.mark.parametrize("max_bin", [2, 16, 256, 512])
@pytest.mark.parametrize("name", COLUMNS)
def test_predictions_on_the_training_matrix_equal_those_on_a_plain_matrix(name: str, max_bin: int) -> None:
    data, columns = binned_case(name, max_bin), COLUMNS[name]
    np.testing.assert_array_equal(data.booster.predict(data.training), data.booster.predict(data.plain(columns)))


@pytest.mark.parametrize("max_bin", [2, 16, 256, 512])
@pytest.mark.parametrize("name", COLUMNS)
def test_both_matrices_have_the_chosen_cut_points(name: str, max_bin: int) -> None:
    data = binned_case(name, max_bin)
    for points, held, taken, cast in zip(
        data.reference.cut_points,
        data.cuts(data.library.data),
        data.cuts(data.training),
        data.reference.spec.feature_casts,
        strict=True,
    ):
        np.testing.assert_array_equal(held, taken)
        if cast.rule == "category":
            np.testing.assert_array_equal(held, points)
        elif len(points):
            # XGBoost opens the first bin somewhere below the smallest value and closes the last one above the largest.
            np.testing.assert_array_equal(held[1:-1], points[1:])
            assert held[0] < points[0]
            assert held[-1] > points[-1]


@pytest.mark.parametrize("name", ["a value far above the sample", "a rare value", "far above, with missing values"])
def test_a_single_row_that_the_sample_has_missed_can_be_split_off(name: str) -> None:
    columns = COLUMNS[name]
    data = binned({"a": columns["a"]}, LABEL, 256, rounds=30)
    predictions = data.booster.predict(data.plain({"a": columns["a"]}))
    assert predictions[ROW] - np.delete(predictions, ROW).max() > 50


@pytest.mark.parametrize("max_bin", [2, 16, 256])
def test_rows_that_training_has_not_seen_are_binned_as_the_trees_split_them(max_bin: int) -> None:
    kinds = np.where(NORMAL > 0, "p", "n")
    columns = {"a": with_missing(NORMAL, 0.1), "b": np.round(NORMAL[::-1] * 3), "kind": kinds}
    data = binned(columns, LABEL, max_bin)
    unseen = {
        "a": np.array([1e30, -1e30, np.nan, 0.0, NORMAL.max() * 1.5, NORMAL.min() * 1.5, NORMAL.max(), NORMAL.min()]),
        "b": np.array([0.5, -1e9, 1e9, np.nan, 100.0, -100.0, 0.0, 1.0]),
        "kind": pa.array(["p", "n", "never seen", None, "zz", "", "p", "n"]),
    }
    np.testing.assert_array_equal(data.booster.predict(data.matrix(unseen)), data.booster.predict(data.plain(unseen)))


VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-42]), st.floats(-100, 100, width=32), st.integers(-3, 3)
)


@given(
    st.lists(st.lists(st.one_of(st.none(), VALUES), min_size=12, max_size=12), min_size=1, max_size=3),
    st.sampled_from([2, 3, 5, 16]),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_any_table_predicts_alike_on_its_training_matrix_and_on_a_plain_one(
    rows: list[list[float | None]], max_bin: int, fraction: float, seed: int
) -> None:
    columns = {f"c{j}": pa.array(values, pa.float64()) for j, values in enumerate(rows)}
    label = np.random.default_rng(seed).normal(size=12)
    data = binned(columns, label, max_bin, fraction, seed, rounds=4)
    np.testing.assert_array_equal(data.booster.predict(data.training), data.booster.predict(data.plain(columns)))

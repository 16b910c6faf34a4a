"""The profile of a table is the same, bit for bit, however its rows were divided and merged."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardfit.exact_sum import exact_total
from shardfit.matrix_reader import digest_content
from shardfit.profile import LARGEST_EXACT_INTEGER, DistinctValues, Profile, ProfileBuilder, SampleSpec
from shardfit.profile.samples import SampledRows
from shardfit.row_hash import hash_values

Array = npt.NDArray[Any]

COLUMNS = 3
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, float("nan"), 2.0**24 + 2, -1e30, 1e-42]), st.floats(-1e6, 1e6, width=32)
)


class Rows:
    """Rows of a table: features, labels, weights, categories, all float32."""

    def __init__(self, features: Array, seed: int) -> None:
        random = np.random.default_rng(seed)
        count = len(features)
        self.ids = np.arange(count)
        self.features = features
        self.labels = np.round(random.normal(size=count), 1).astype(np.float32) + np.float32(0)
        self.weights = random.random(count).astype(np.float32)
        self.categories = random.choice(["a", "b", "c", "d"], count)

    def profile(self, rows: Array, spec: SampleSpec, batch: int = 1000, at_once: int = COLUMNS) -> Profile:
        """Return the profile of some rows, read in batches and so many columns at a time."""
        builder = ProfileBuilder(COLUMNS, 1, 2, spec)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            blocks = np.split(self.features[part].T, range(at_once, COLUMNS, at_once))
            builder.add_features(part, blocks, self.weights[part], [0])
            builder.add_labels(part, self.labels[part])
            builder.add_categories("kind", self.categories[part].tolist())
            builder.add_content(digest_content(part, self.labels[part]))
            terms = np.column_stack([self.labels[part], self.weights[part]]).astype(np.float64)
            builder.add_terms(terms * np.exp2(part % 40)[:, None])
        return builder.build()


@st.composite
def tables(draw: st.DrawFn, most: int = 30) -> Rows:
    count = draw(st.integers(1, most))
    features = draw(hnp.arrays(np.float32, (count, COLUMNS), elements=VALUES.map(np.float32), fill=st.nothing()))
    return Rows(features, draw(st.integers(0, 2**32 - 1)))


def specs() -> st.SearchStrategy[SampleSpec]:
    return st.builds(
        SampleSpec, st.integers(0, 100), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.sampled_from([0, 1, 3, 1024])
    )


def assert_same(found: Profile, expected: Profile) -> None:
    for field in fields(Profile):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "terms":
            assert [exact_total(parts) for parts in one] == [exact_total(parts) for parts in other]
        elif field.name == "distinct":
            for mine, theirs in zip(one, other, strict=True):
                assert_same_distinct(mine, theirs)
        elif field.name == "label_values":
            assert_same_distinct(one, other)
        elif isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes(), field.name
        elif isinstance(one, float):
            np.testing.assert_equal(one, other, err_msg=field.name)
        else:
            assert one == other, field.name


def assert_same_distinct(found: DistinctValues, expected: DistinctValues) -> None:
    assert found.values.tobytes() == expected.values.tobytes()
    assert (found.limit, found.complete) == (expected.limit, expected.complete)


@given(tables(), specs(), st.data())
def test_profiles_of_any_parts_merged_in_any_order_are_the_profile_of_the_whole(
    table: Rows, spec: SampleSpec, data: st.DataObject
) -> None:
    owners = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(table.ids), max_size=len(table.ids))))
    batch, at_once = data.draw(st.integers(1, 20)), data.draw(st.integers(1, COLUMNS))
    parts = [table.profile(np.flatnonzero(owners == owner), spec, batch, at_once) for owner in range(5)]
    order = data.draw(st.permutations(range(5)))
    assert_same(Profile.merge(parts[i] for i in order), table.profile(table.ids, spec))


@given(tables(), specs())
def test_merging_in_a_tree_or_in_a_row_is_the_same(table: Rows, spec: SampleSpec) -> None:
    a, b, c, d = (table.profile(table.ids[i::4], spec) for i in range(4))
    assert_same((a + b) + (c + d), ((a + b) + c) + d)


@given(tables(), specs())
def test_an_empty_profile_changes_nothing(table: Rows, spec: SampleSpec) -> None:
    whole = table.profile(table.ids, spec)
    assert_same(whole + Profile.empty(COLUMNS, 1, 2, spec), whole)


@given(tables(), specs())
def test_the_profile_says_what_the_table_holds(table: Rows, spec: SampleSpec) -> None:
    profile = table.profile(table.ids, spec)
    assert profile.rows == len(table.ids)
    np.testing.assert_array_equal(profile.missing, np.isnan(table.features).sum(axis=0))
    for j, column in enumerate(table.features.T):
        present = column[~np.isnan(column)]
        expected = (present.min(), present.max()) if len(present) else (np.nan, np.nan)
        np.testing.assert_array_equal((profile.minimum[j], profile.maximum[j]), expected)
    assert profile.beyond_float32[0] == np.count_nonzero(np.abs(table.features[:, 0]) >= LARGEST_EXACT_INTEGER)
    assert profile.categories == {"kind": frozenset(table.categories.tolist())}
    assert (profile.label_minimum, profile.label_maximum) == (table.labels.min(), table.labels.max())
    kept = spec.keeps(table.ids)
    np.testing.assert_array_equal(profile.sample_ids, table.ids[kept])
    np.testing.assert_array_equal(profile.sample, table.features[kept])
    np.testing.assert_array_equal(profile.sample_weights, table.weights[kept])
    np.testing.assert_array_equal(profile.sample_labels[:, 0], table.labels[kept])


@given(hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e200, 1e200)))
def test_totals_are_correctly_rounded(values: Array) -> None:
    import math

    builder = ProfileBuilder(0, 1, 1, SampleSpec(0, 0.0, 0))
    for part in np.array_split(values, 3):
        builder.add_terms(part[:, None])
    assert builder.build().totals == (math.fsum(values.tolist()),)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 77])
def test_the_sample_holds_about_its_fraction_of_the_rows_spread_over_all_of_them(fraction: float, seed: int) -> None:
    rows = 200_000
    kept = np.flatnonzero(SampleSpec(seed, fraction).keeps(np.arange(rows)))
    deviation = np.sqrt(rows * fraction * (1 - fraction))
    assert abs(len(kept) - rows * fraction) < 5 * deviation
    for tenth in np.bincount(kept * 10 // rows, minlength=10):
        assert abs(tenth - rows * fraction / 10) < 6 * deviation / np.sqrt(10)


@given(st.integers(0, 10**12), st.integers(0, 5000), st.integers(1, 10**6), st.integers(1, 2**30))
def test_the_sample_stays_within_its_limits(rows: int, columns: int, most_rows: int, most_bytes: int) -> None:
    fraction = SampleSpec.within(0, rows, columns, most_rows, most_bytes).fraction
    assert 0 < fraction <= 1
    assert fraction * rows <= min(most_rows, max(most_bytes / (4 * max(columns, 1)), 8192)) * (1 + 1e-9)
    # All rows where they fit.
    assert fraction == 1 or rows > min(most_rows, 8192)


FINITE = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0]), st.floats(allow_nan=False, width=32))


@given(st.lists(st.lists(FINITE, max_size=30), max_size=6), st.integers(1, 10))
def test_distinct_values_are_those_with_the_smallest_hashes(batches: list[list[float]], limit: int) -> None:
    found = DistinctValues.empty(limit)
    for batch in batches:
        found = found.add(np.array(batch, dtype=np.float32))
    everything = np.array([value for batch in batches for value in batch], dtype=np.float32) + np.float32(0)
    unique = np.unique(everything)
    expected = unique[np.argsort(hash_values(unique))][:limit]
    np.testing.assert_array_equal(found.values, expected)
    assert found.complete == (len(unique) <= limit)


def test_a_rare_value_is_as_likely_to_be_kept_as_a_frequent_one() -> None:
    kept = 0
    for shift in range(300):
        frequent, rare = (np.arange(100, dtype=np.float32) + np.float32(200 * shift + 100 * i) for i in range(2))
        found = DistinctValues.empty(20).add(np.repeat(frequent, 50)).add(rare)
        kept += np.count_nonzero(np.isin(found.values, rare))
    # Half of 20 values, 300 times; the standard deviation of one such draw is about 2.
    assert abs(kept - 300 * 10) < 5 * 2 * np.sqrt(300)


def test_no_distinct_values_are_kept_where_none_are_wanted() -> None:
    found = DistinctValues.empty(0).add(np.ones(3, dtype=np.float32))
    assert (len(found.values), found.complete) == (0, False)


def test_an_infinite_feature_is_found_by_its_position() -> None:
    builder = ProfileBuilder(2, 1, 0, SampleSpec(0, 1.0))
    builder.add_features(np.arange(2), [np.array([[1, 3], [2, -np.inf]], dtype=np.float32)], None, [])
    assert builder.infinite_feature() == 1


def test_rows_count_one_each_where_there_are_no_weights() -> None:
    builder = ProfileBuilder(1, 1, 0, SampleSpec(0, 1.0))
    builder.add_features(np.arange(3), [np.zeros((1, 3), dtype=np.float32)], None, [])
    assert builder.build().sample_weights.tolist() == [1, 1, 1]


@given(
    st.lists(st.lists(st.integers(-40, 40), min_size=1, max_size=60), min_size=1, max_size=8),
    st.integers(1, 30),
)
def test_a_builder_keeps_the_distinct_values_that_adding_each_batch_keeps(batches: list[list[int]], limit: int) -> None:
    builder, expected, row = ProfileBuilder(1, 1, 0, SampleSpec(0, 1.0, limit)), DistinctValues.empty(limit), 0
    for batch in batches:
        values = np.array(batch, dtype=np.float32)
        builder.add_features(np.arange(row, row + len(batch)), [values[np.newaxis]], None, [])
        expected, row = expected.add(values), row + len(batch)
    found = builder.build().distinct[0]
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.complete == expected.complete


def test_what_is_kept_does_not_grow_with_the_rows_beside_a_column_of_few_values() -> None:
    random = np.random.default_rng(0)
    builder, rows = ProfileBuilder(2, 1, 0, SampleSpec(0, 0.0, 100)), 10_000
    tracemalloc.start()
    try:
        for row in range(0, 50 * rows, rows):
            values = random.random((2, rows), dtype=np.float32)
            values[0] = values[0] < 0.5
            builder.add_features(np.arange(row, row + rows), [values], None, ())
        del values
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The rows of one batch of one column.
    assert held < 4 * rows


@pytest.mark.parametrize("sizes", [(2,), (2, 2), (3, 1)])
def test_more_or_fewer_columns_than_there_are_features_are_refused(sizes: tuple[int, ...]) -> None:
    builder = ProfileBuilder(3, 1, 0, SampleSpec(0, 1.0))
    with pytest.raises(ValueError, match="3"):
        builder.add_features(np.arange(5), [np.ones((size, 5), dtype=np.float32) for size in sizes], None, ())


def test_what_is_kept_without_the_sample_does_not_hold_it() -> None:
    builder = ProfileBuilder(3, 1, 0, SampleSpec(0, 1.0))
    builder.add_features(np.arange(100), [np.ones((3, 100), dtype=np.float32)], None, ())
    builder.add_labels(np.arange(100), np.ones(100, dtype=np.float32))
    kept = builder.build().without_sample().sample
    assert kept.shape == (0, 3)
    # A view would.
    assert kept.base is None


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 60))
def test_sampled_rows_are_those_taken_in_however_much_room_there_was(sizes: list[int], room: int) -> None:
    taken, sampled = [np.zeros((0, 3), dtype=np.float32)], SampledRows(3, room)
    for number, size in enumerate(sizes):
        features = np.arange(3 * size, dtype=np.float32).reshape(size, 3) + 1000 * number
        sampled.room_for(size)[:] = features.T
        taken.append(features)
    found = sampled.build()
    np.testing.assert_array_equal(found, np.concatenate(taken))
    assert all(found[:, j].flags.c_contiguous for j in range(3))


@pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.3, 1.0])
def test_there_is_room_for_the_sample_of_a_shard(fraction: float) -> None:
    for seed in range(50):
        spec = SampleSpec(seed, fraction)
        assert spec.keeps(np.arange(5_000)).sum() <= spec.most_kept(5_000) <= 5_000

"""Stand-ins for values change no byte of a matrix, and rows are decoded no more often than they must be."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from shardfit.binned_trainer import BinReference
from shardfit.casts import plan_casts
from shardfit.columns import ColumnRoles
from shardfit.errors import ChangedDataError, CoverageError, UnreadableSourceError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader
from shardfit.profile import Profile, SampleSpec
from shardfit.profile.shard import ProfileRequest, profile_shard
from shardfit.shard_plan import World
from shardfit.shard_reader import ShardReader
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit_xgboost import shard_stream
from shardfit_xgboost.config import configure
from shardfit_xgboost.matrix import ShardMatrix, ingest, open_reference
from shardfit_xgboost.row_stream import RowStream, planned_batches, regroup, stand_ins
from shardfit_xgboost.shard_stream import missing_bits
from shardfit_xgboost.trainer import XGBTrainer

ROWS, BATCH_ROWS = 3_000, 512
PARAMS = {"tree_method": "hist", "max_depth": 6, "nthread": 2, "base_score": 0.0}


class CountingSource(ArrowSource):
    """Counts the rows that are decoded; cuts batches as it likes, and may change or fail in a later pass."""

    def __init__(self, table: pa.Table, most: int = 10**9, later: pa.Table | None = None, fail_in: int = 0) -> None:
        super().__init__(table, fragment_rows=1_300)
        self.read_rows = self.passes = 0
        self._most, self._fail_in = most, fail_in
        self._later = None if later is None else ArrowSource(later, fragment_rows=1_300)

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self.passes += fragment.index == 0 and start == 0
        read = super().read if self._later is None or self.passes < 2 else self._later.read
        for batch in read(fragment, columns, start, stop, min(batch_rows, self._most)):
            if self.passes == self._fail_in and fragment.index == 1:
                raise UnreadableSourceError("reading", "a damaged page")
            self.read_rows += batch.num_rows
            yield batch


def table(rows: int = ROWS, holes: float = 0.0, kinds: bool = False, seed: int = 0) -> pa.Table:
    """Return features of many and of few values, weights, margins, and a label; `holes` is the share of missing."""
    random = np.random.default_rng(seed)
    many, few = random.normal(size=rows), random.integers(-3, 4, rows)
    columns: dict[str, Any] = {
        "many": pa.array(many, mask=random.random(rows) < holes),
        "few": pa.array(few, mask=random.random(rows) < holes),
        "skewed": np.exp(3 * random.normal(size=rows)).astype(np.float32),
    }
    if kinds:
        columns["kind"] = pa.array(np.array(list("abcd"))[few % 4], mask=random.random(rows) < holes)
    label = many + few + random.normal(size=rows)
    return pa.table({**columns, "label": label, "weight": random.random(rows), "margin": random.normal(size=rows)})


class Profiled:
    """A training table that was profiled, and readers of any table by its reference."""

    def __init__(self, training: pa.Table) -> None:
        features = [name for name in training.column_names if name not in {"label", "weight", "margin"}]
        kinds = tuple(name for name in features if name == "kind")
        self.roles = ColumnRoles(tuple(features), ("label",), "weight", None, ("margin",), kinds)
        self.workers, self.threads = 1, 2
        self.casts = plan_casts(training.schema, self.roles.all, kinds)
        self.trainer, self.config = XGBTrainer(), configure({})
        profile = self.profile(training)
        self.reference = BinReference.from_profile(profile, self.roles, self.casts, 256, float("nan"), {})

    def shard(self, source: ArrowSource, rank: int = 0) -> ShardReader:
        fragments = source.fragments()
        shard = list(shard_by_rows(fragments, World(self.workers)).shards(fragments))[rank]
        return ShardReader("train", source, shard, self.roles.all, BATCH_ROWS)

    def profile(self, rows: pa.Table) -> Profile:
        specs = {"train": SampleSpec(0, 0.2)}
        terms = self.trainer.terms(self.config, self.roles)
        request = ProfileRequest(self.roles, self.casts, self.config.missing, terms, specs)
        shard = self.shard(ArrowSource(rows, fragment_rows=1_300))
        return profile_shard(shard, self.trainer, self.config, request, with_terms=True)

    def reader(self, source: ArrowSource, *, gapless: bool, rank: int = 0) -> MatrixReader:
        return MatrixReader(self.shard(source, rank), self.reference.spec, gapless=gapless)

    def ingest(self, rows: pa.Table, source: ArrowSource | None = None) -> tuple[ShardMatrix, MatrixReader]:
        """Return the matrix as a worker makes it, after a profile that says whether values are missing."""
        gapless = self.profile(rows).gapless if rows.num_rows else True
        reader = self.reader(source or ArrowSource(rows, fragment_rows=1_300), gapless=gapless)
        return ingest(reader, open_reference(self.reference), self.threads), reader

    def plain(self, rows: pa.Table) -> ShardMatrix:
        """Return the matrix that is made of values in every walk."""
        reader = self.reader(ArrowSource(rows, fragment_rows=1_300), gapless=False)
        return ingest(reader, open_reference(self.reference), self.threads, on_gpu=True)


def assert_same(found: ShardMatrix, plain: ShardMatrix) -> None:
    """Check everything that XGBoost tells of two matrices, and the booster that it trains on them."""
    for count in ("num_row", "num_col", "num_nonmissing"):
        assert getattr(found.data, count)() == getattr(plain.data, count)()
    for one, other in zip(found.data.get_quantile_cut(), plain.data.get_quantile_cut(), strict=True):
        np.testing.assert_array_equal(one, other)
    if plain.data.num_row():
        binned, expected = found.data.get_data(), plain.data.get_data()
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(binned, part), getattr(expected, part))
    for field in ("label", "weight", "base_margin"):
        values = [matrix.data.get_float_info(field) for matrix in (found, plain)]
        np.testing.assert_array_equal(*values)
    assert found.row_ranges == plain.row_ranges
    np.testing.assert_array_equal(found.weights, plain.weights)
    trained = [xgb.train(PARAMS, matrix.data, 5).save_raw() for matrix in (found, plain) if plain.data.num_row()]
    assert len(set(map(bytes, trained))) <= 1


HOLED = table(holes=0.2)
TABLES = {
    "no value missing": table(),
    "values missing": HOLED,
    "a column all missing": table().set_column(0, "many", pa.nulls(ROWS, pa.float64())),
    "every value missing": pa.table(
        {
            n: pa.nulls(ROWS, pa.float64()) if n in {"many", "few", "skewed"} else c
            for n, c in zip(HOLED.column_names, HOLED.columns, strict=True)
        }
    ),
    "missing in the last row only": table().set_column(0, "many", pa.array([*range(ROWS - 1), None], pa.float64())),
    "categories": table(kinds=True),
    "categories missing": table(holes=0.3, kinds=True),
    "one batch": table(400),
    "one batch with missing values": table(400, holes=0.2),
    "two batches": table(641),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_matrix_is_the_one_that_values_in_every_walk_give(name: str) -> None:
    profiled = Profiled(TABLES[name])
    found, reader = profiled.ingest(TABLES[name])
    assert_same(found, profiled.plain(TABLES[name]))
    assert reader.coverage(found.data.num_row(), None).exact


@pytest.mark.parametrize("training", ["no value missing", "values missing"])
@pytest.mark.parametrize("rows", ["no value missing", "values missing", "a column all missing", "no rows"])
def test_an_evaluation_set_may_miss_other_values_than_the_training_data(training: str, rows: str) -> None:
    profiled = Profiled(TABLES[training])
    evaluation = table(1, seed=5).slice(0, 0) if rows == "no rows" else TABLES[rows]
    found, _ = profiled.ingest(evaluation)
    assert_same(found, profiled.plain(evaluation))


@pytest.mark.parametrize(
    ("name", "reads"),
    [("no value missing", 1), ("values missing", 2), ("categories", 2), ("one batch", 3), ("two batches", 1)],
)
def test_rows_are_decoded_no_more_often_than_needed(name: str, reads: int) -> None:
    source = CountingSource(TABLES[name])
    Profiled(TABLES[name]).ingest(TABLES[name], source)
    assert source.read_rows == reads * TABLES[name].num_rows


@pytest.mark.parametrize("most", [1, 7, 300, 511, 512])
@pytest.mark.parametrize("name", ["no value missing", "values missing"])
def test_a_source_may_cut_batches_as_it_likes(name: str, most: int) -> None:
    # XGBoost's threads wait for each other after every batch, and here a batch may be a row.
    profiled = Profiled(TABLES[name])
    profiled.threads = 1
    found, _ = profiled.ingest(TABLES[name], CountingSource(TABLES[name], most))
    assert_same(found, profiled.plain(TABLES[name]))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_shards_that_begin_inside_a_fragment_are_cut_alike(rank: int) -> None:
    profiled = Profiled(TABLES["no value missing"])
    profiled.workers = 3
    readers = [profiled.reader(ArrowSource(table(), fragment_rows=1_300), gapless=g, rank=rank) for g in (True, False)]
    library = open_reference(profiled.reference)
    found, plain = (ingest(readers[i], library, 2, on_gpu=bool(i)) for i in (0, 1))
    assert_same(found, plain)


def test_a_value_that_went_missing_after_the_profile_is_told_by_row_and_column() -> None:
    profiled = Profiled(table())
    holed = table().set_column(1, "few", pa.array([None if i == 1_777 else 1 for i in range(ROWS)], pa.int64()))
    reader = profiled.reader(ArrowSource(holed, fragment_rows=1_300), gapless=True)
    with pytest.raises(ChangedDataError, match=r"'few'[\s\S]*1777"):
        ingest(reader, open_reference(profiled.reference), 2)


@pytest.mark.parametrize("fail_in", [1, 2])
def test_an_error_in_the_middle_of_a_walk_is_raised(fail_in: int) -> None:
    rows = TABLES["values missing"]
    profiled = Profiled(rows)
    with pytest.raises(UnreadableSourceError, match="a damaged page"):
        profiled.ingest(rows, CountingSource(rows, fail_in=fail_in))


def test_what_the_binning_walk_hands_over_is_what_counts() -> None:
    profiled, rows = Profiled(HOLED), HOLED
    swapped = pa.concat_tables([rows.slice(0, 10), rows.slice(11, 1), rows.slice(10, 1), rows.slice(12)])
    _, sound = profiled.ingest(rows)
    _, changed = profiled.ingest(rows, CountingSource(rows, later=swapped))
    assert changed.content != sound.content


def test_another_number_of_walks_is_an_error() -> None:
    profiled = Profiled(table())
    reader = profiled.reader(ArrowSource(table(), fragment_rows=1_300), gapless=True)
    with HeldInterrupt() as interrupt:
        stream = RowStream(reader, interrupt, stand_ins=True)
        for _ in range(2):
            stream.reset()
            while stream.next(lambda **values: None):
                pass
    with pytest.raises(CoverageError, match="walked 2 times"):
        stream.check_walks()


def test_what_decoding_needed_is_given_back_before_the_last_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    training, events = table(), []
    reader = Profiled(training).reader(ArrowSource(training, fragment_rows=1_300), gapless=True)
    monkeypatch.setattr(shard_stream, "give_back_memory", lambda: events.append("given back"))
    with HeldInterrupt() as interrupt:
        stream = RowStream(reader, interrupt, stand_ins=True)
        for _ in range(3):
            stream.reset()
            while stream.next(lambda data, **others: events.append(f"{len(data)} rows")):
                pass
    batches = [f"{rows} rows" for rows in planned_batches(reader)]
    # Not in the walks that read nothing.
    assert events == [*batches, *batches[:-1], "given back", batches[-1], *batches]


def test_stand_ins_take_no_more_memory_than_a_batch_and_a_bit_for_each_value() -> None:
    rows = 64 * BATCH_ROWS
    profiled, everything = Profiled(HOLED), table(rows, holes=0.1)
    reader = profiled.reader(ArrowSource(everything), gapless=False)
    with HeldInterrupt() as interrupt:
        stream = RowStream(reader, interrupt, stand_ins=True)
        for _ in range(2):
            stream.reset()
            while stream.next(lambda **values: None):
                pass
        held = sum(0 if batch.missing is None else batch.missing.nbytes for batch in stream.kept)
        # Of each batch, a byte may not be full.
        assert held <= rows * 3 / 8 + len(stream.kept)
        tracemalloc.start()
        stream.reset()
        while stream.next(lambda **values: None):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * BATCH_ROWS * 3 * 4 + 64 * 1024


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(1, 9), max_size=12))
def test_regrouping_keeps_rows_and_their_order(cuts: list[int], sizes: list[int]) -> None:
    total = min(sum(cuts), sum(sizes))
    wanted, left = [], total
    for size in sizes:
        wanted.append(min(size, left))
        left -= wanted[-1]
    wanted = [size for size in wanted if size]
    ids = np.arange(total, dtype=np.int64)
    features = np.asfortranarray(np.arange(2 * total, dtype=np.float32).reshape(total, 2))
    whole = MatrixBatch(ids, features, features[:, 0], None, ids % 3 == 0, features)
    edges = np.minimum(np.cumsum([0, *cuts]), total).tolist()
    parts = [
        MatrixBatch(ids[a:b], features[a:b], features[a:b, 0], None, (ids % 3 == 0)[a:b], features[a:b])
        for a, b in pairwise(edges)
    ]
    found = list(regroup(parts, wanted))
    assert [len(batch.row_ids) for batch in found] == wanted
    for name in ("row_ids", "features", "labels", "group_starts", "base_margin"):
        if found:
            joined = np.concatenate([getattr(batch, name) for batch in found])
            np.testing.assert_array_equal(joined, getattr(whole, name))
    assert all(batch.weights is None for batch in found)


@given(st.integers(1, 40), st.integers(1, 4), st.floats(0, 1), st.integers(0, 99))
def test_stand_ins_are_missing_where_the_values_are(rows: int, features: int, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, features)).astype(np.float32)
    values[random.random(values.shape) < share] = np.nan
    bits = missing_bits(values)
    assert (bits is None) == (not np.isnan(values).any())
    (found,) = stand_ins(features, [(rows, bits)])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    assert found.shape == values.shape
    assert not found[~np.isnan(values)].any()


def test_planned_batches_hold_every_row_of_the_shard() -> None:
    reader = Profiled(table()).reader(ArrowSource(table(), fragment_rows=1_300), gapless=True)
    assert planned_batches(reader) == [434, 434, 432, 434, 434, 432, 400]
    # Each batch costs XGBoost's threads the same, however small it is.
    small = Profiled(table()).reader(ArrowSource(table(), fragment_rows=100), gapless=True)
    assert planned_batches(small) == [500] * 6

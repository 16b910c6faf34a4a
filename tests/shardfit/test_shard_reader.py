"""A shard is read once a pass, in global order, and a reader that loses or repeats rows is caught."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.errors import ChangedDataError, CoverageError, UnreadableSourceError
from shardfit.shard_plan import FragmentSlice, Shard, World
from shardfit.shard_reader import FEW_SLICES, ShardBatch, ShardReader, join_small
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import DataSource, Fragment
from shardfit.testing.strategies import fragment_lists, worlds

SCHEMA = pa.schema([("fragment", pa.int64()), ("row", pa.int64())])
FRAGMENTS = (Fragment("a", 0, 7), Fragment("a", 1, 0), Fragment("b", 0, 5))


@dataclass
class CountingSource(DataSource):
    """Rows that say where they stand: the position of their fragment and their number in it."""

    listed: Sequence[Fragment]
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def schema(self) -> pa.Schema:
        return SCHEMA

    def fragments(self) -> Sequence[Fragment]:
        return self.listed

    def describe(self) -> str:
        return "counted rows"

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self.asked.append((str(fragment), start, stop))
        for first in range(start, stop, batch_rows):
            rows = np.arange(first, min(first + batch_rows, stop))
            yield self.batch(self.listed.index(fragment), rows).select(list(columns))

    def batch(self, position: int, rows: np.ndarray) -> pa.RecordBatch:
        return pa.record_batch([pa.array(np.full(len(rows), position)), pa.array(rows)], schema=SCHEMA)


def shards_of(fragments: Sequence[Fragment], workers: int) -> list[Shard]:
    return list(shard_by_rows(fragments, World(workers)).shards(fragments))


def reader_of(
    source: DataSource, shard: Shard, batch_rows: int = 3, kind: type[ShardReader] = ShardReader
) -> ShardReader:
    return kind("train", source, shard, ("fragment", "row"), batch_rows)


def rows_read(reader: ShardReader) -> list[tuple[int, int, int]]:
    """(global row, fragment, row in it) of every row of a pass."""
    return [
        (int(number), *place)
        for batch in reader.batches()
        for number, place in zip(batch.row_ids, zip(*batch.records.to_pydict().values(), strict=True), strict=True)
    ]


@given(fragment_lists(max_fragments=6, max_rows=15), worlds(6), st.integers(1, 7))
def test_all_shards_together_read_every_row_once_in_global_order(
    fragments: tuple[Fragment, ...], world: World, batch_rows: int
) -> None:
    source = CountingSource(fragments)
    readers = [reader_of(source, shard, batch_rows) for shard in shards_of(fragments, world.workers)]
    read = [row for reader in readers for row in rows_read(reader)]
    places = [(i, row) for i, fragment in enumerate(fragments) for row in range(fragment.rows)]
    assert read == [(number, *place) for number, place in enumerate(places)]
    for reader in readers:
        DatasetCoverage(RowDigest.of_shard(reader.shard), reader.handed).check("train")
        assert reader.handed.rows == reader.rows


def test_only_the_rows_of_the_shard_are_asked_for() -> None:
    source = CountingSource(FRAGMENTS)
    rows_read(reader_of(source, shards_of(FRAGMENTS, 2)[1]))
    assert source.asked == [("'a', fragment 0", 6, 7), ("'b', fragment 0", 0, 5)]


def test_batches_have_the_columns_asked_for_and_name_their_fragment() -> None:
    reader = ShardReader("train", CountingSource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0], ["row"], 100)
    first, second = reader.batches()
    assert first.records.schema.names == ["row"]
    assert (first.origin, second.origin_of(4)) == ("'a', fragment 0", "'b', fragment 0")
    assert first.row_ids.dtype == np.int64


def test_a_shard_of_many_small_slices_is_handed_over_in_few_batches() -> None:
    fragments = [Fragment("files", i, 1 + i % 3) for i in range(FEW_SLICES + 1)]
    reader = ShardReader("train", CountingSource(fragments), shards_of(fragments, 1)[0], ["row"], 1_000)
    (batch,) = reader.batches()
    assert batch.origin == "'files', fragment 0 to 'files', fragment 64"
    assert [batch.origin_of(row) for row in (0, 1, 2, 3)] == [f"'files', fragment {i}" for i in (0, 1, 1, 2)]
    assert len(rows_read(reader)) == reader.rows == reader.handed.rows


def test_neighbours_of_few_rows_are_joined_and_others_are_as_they_were() -> None:
    starts = np.cumsum([0, 5, 5, 5, 30, 5, 40, 5, 9, 9, 9])
    batches = [batch_of(a, pa.array(range(b - a))) for a, b in pairwise(starts.tolist())]
    found = list(join_small(batches, 40))
    assert [len(batch.row_ids) for batch in found] == [15, 30, 5, 40, 32]
    assert np.concatenate([batch.row_ids for batch in found]).tolist() == list(range(122))
    assert (found[0].origin, found[1].origin) == ("fragment 0 to fragment 10", "fragment 15")


def batch_of(first: int, values: pa.Array) -> ShardBatch:
    rows = len(values)
    return ShardBatch(np.arange(first, first + rows), pa.record_batch({"x": values}), ((rows, f"fragment {first}"),))


def test_what_cannot_be_joined_stays_apart() -> None:
    narrow = [batch_of(i, pa.array([f"{i}"]).cast(pa.dictionary(pa.int8(), pa.string()))) for i in range(300)]
    assert len(list(join_small(narrow, 10_000))) == 300
    wide = [batch_of(i, pa.array([f"{i}"]).cast(pa.dictionary(pa.int32(), pa.string()))) for i in range(300)]
    (joined,) = join_small(wide, 10_000)
    assert joined.records.column(0).to_pylist() == [f"{i}" for i in range(300)]
    kinds = [batch_of(0, pa.array([1])), batch_of(1, pa.array([2])), batch_of(2, pa.array(["a"]))]
    assert [len(found.row_ids) for found in join_small(kinds, 10_000)] == [2, 1]
    texts = [batch_of(i, pa.array(["x" * 2**21])) for i in range(9)]
    assert [len(found.row_ids) for found in join_small(texts, 10_000)] == [7, 2]


def test_a_shard_adds_its_rows_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fragments = [Fragment("files", i, 1) for i in range(50)]
    reader = reader_of(CountingSource(fragments), shards_of(fragments, 1)[0])
    monkeypatch.setattr(Shard, "rows", property(lambda shard: pytest.fail("the slices are added up again")))
    assert len(rows_read(reader)) == reader.rows == 50


def test_an_empty_shard_yields_nothing() -> None:
    reader = reader_of(CountingSource(FRAGMENTS), Shard(5, (), 12))
    assert rows_read(reader) == []
    assert reader.handed == RowDigest()


def test_every_pass_starts_its_digest_anew() -> None:
    reader = reader_of(CountingSource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0])
    assert rows_read(reader) == rows_read(reader)
    assert reader.handed == RowDigest.of_range(0, 12)


def test_progress_is_told_in_rows_so_far() -> None:
    told: list[int] = []
    shard = shards_of(FRAGMENTS, 1)[0]
    reader = ShardReader("train", CountingSource(FRAGMENTS), shard, ["row"], 4, on_rows=told.append)
    rows_read_so_far = [len(batch.row_ids) for batch in reader.batches()]
    # No batch is a quarter larger than it was asked to be.
    assert rows_read_so_far == [4, 3, 5]
    assert told == [4, 7, 12]


def test_a_pass_given_up_leaves_no_thread_and_an_incomplete_digest() -> None:
    fragments = [Fragment("a", 0, 10_000)]
    reader = reader_of(CountingSource(fragments), shards_of(fragments, 1)[0])
    batches = reader.batches()
    next(batches)
    batches.close()
    assert [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name] == []
    with pytest.raises(CoverageError):
        DatasetCoverage(RowDigest.of_shard(reader.shard), reader.handed).check("train")


class AlteredSource(CountingSource):
    """Returns other rows than it was asked for, as `alter` says."""

    alter: Callable[[list[pa.RecordBatch]], list[pa.RecordBatch]]

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        return iter(type(self).alter(list(super().read(fragment, columns, start, stop, batch_rows))))


class ShortSource(AlteredSource):
    alter = staticmethod(lambda batches: batches[:-1])


class LongSource(AlteredSource):
    alter = staticmethod(lambda batches: [*batches, batches[-1]])


class GappySource(AlteredSource):
    alter = staticmethod(lambda batches: [piece for batch in batches for piece in (batch.slice(0, 0), batch)])


def test_a_fragment_with_fewer_rows_than_planned_is_an_error_that_names_it() -> None:
    reader = reader_of(ShortSource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0])
    with pytest.raises(
        ChangedDataError, match=r"'a', fragment 0, rows 0 to 7: found 6 rows where 7 were planned\. The data changed"
    ):
        rows_read(reader)


def test_rows_beyond_those_planned_are_never_handed_over() -> None:
    reader = reader_of(LongSource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0])
    read: list[int] = []
    with pytest.raises(ChangedDataError, match="found at least 8 rows where 7 were planned"):
        read.extend(number for batch in reader.batches() for number in batch.row_ids.tolist())
    assert reader.handed == RowDigest.of_range(0, 7)


def test_batches_without_rows_are_passed_over() -> None:
    reader = reader_of(GappySource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0])
    assert [len(batch.row_ids) for batch in reader.batches()] == [3, 3, 1, 3, 2]


def test_an_error_of_the_source_arrives_as_it_was_raised() -> None:
    class CorruptSource(CountingSource):
        def read(
            self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
        ) -> Iterator[pa.RecordBatch]:
            yield self.batch(0, np.arange(3))
            raise UnreadableSourceError(f"reading {fragment}", "page 2 of column 'row' is corrupt")

    reader = reader_of(CorruptSource(FRAGMENTS), shards_of(FRAGMENTS, 1)[0])
    with pytest.raises(UnreadableSourceError, match="page 2 of column 'row'"):
        rows_read(reader)
    assert reader.handed.rows == 3


class SwappingReader(ShardReader):
    """Hands over row 1 of each slice twice and row 2 never: the number of rows is as planned."""

    def _decode_slice(self, piece: FragmentSlice) -> Iterator[ShardBatch]:
        for batch in super()._decode_slice(piece):
            order = np.where(batch.row_ids == piece.first_row + 2, 1, np.arange(len(batch.row_ids)))
            yield ShardBatch(batch.row_ids[order], batch.records.take(pa.array(order)), batch.origins)


class RepeatingReader(ShardReader):
    """Hands over its first batch in place of every other of the same length."""

    def _decode(self) -> Iterator[ShardBatch]:
        batches = list(super()._decode())
        return iter([batches[0] if len(batch.row_ids) == len(batches[0].row_ids) else batch for batch in batches])


@pytest.mark.parametrize("kind", [SwappingReader, RepeatingReader])
def test_a_reader_that_repeats_a_row_and_drops_another_is_caught(kind: type[ShardReader]) -> None:
    shards = shards_of(FRAGMENTS, 2)
    parts = []
    for shard in shards:
        reader = reader_of(CountingSource(FRAGMENTS), shard, kind=kind)
        numbers = [row[0] for row in rows_read(reader)]
        assert len(numbers) == shard.rows
        parts.append(DatasetCoverage(RowDigest.of_shard(shard), reader.handed, library_rows=len(numbers)))
    with pytest.raises(CoverageError, match=r"planned 12:.*handed over 12:"):
        (parts[0] + parts[1]).check("train")

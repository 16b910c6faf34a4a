"""The digest of rows: the same in any order, in closed form for a range, different for any row in place of another."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.errors import CoverageError
from shardfit.shard_plan import World
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import Fragment

row_numbers = st.integers(0, 2**62)
PLANNED = RowDigest.of_range(0, 10)


def digest_of(rows: list[int]) -> RowDigest:
    return RowDigest.of_rows(np.array(rows, dtype=np.int64))


def powers_one_by_one(rows: list[int]) -> tuple[int, ...]:
    """The second route: Python's integers, which do not wrap around before the end."""
    return tuple(sum(row**power for row in rows) % 2**64 for power in (1, 2, 3))


@given(st.one_of(st.integers(0, 10**4), st.integers(0, 2**62)), st.integers(0, 300))
def test_the_closed_form_of_a_range_is_the_digest_of_its_rows(start: int, rows: int) -> None:
    numbers = list(range(start, start + rows))
    closed = RowDigest.of_range(start, start + rows)
    assert closed == digest_of(numbers)
    assert (closed.rows, closed.powers) == (rows, powers_one_by_one(numbers))


@given(st.integers(0, 10**4), st.integers(3, 40), st.data())
def test_rows_that_are_almost_a_range_are_added_up_one_by_one(start: int, rows: int, data: st.DataObject) -> None:
    """Between the ends of a range, another row than its own, however near."""
    numbers = list(range(start, start + rows))
    numbers[data.draw(st.integers(1, rows - 2))] = data.draw(st.integers(start, start + rows))
    digest = digest_of(numbers)
    assert (digest.rows, digest.powers) == (rows, powers_one_by_one(numbers))


@given(st.lists(row_numbers, max_size=50), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[int], shuffler: object) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest_of(shuffled) == digest_of(rows)


@given(st.lists(st.lists(row_numbers, max_size=10), max_size=10))
def test_digests_of_parts_add_up_to_that_of_the_whole(parts: list[list[int]]) -> None:
    whole = digest_of([row for part in parts for row in part])
    assert RowDigest.total(map(digest_of, parts)) == whole
    assert RowDigest.total(digest_of(part) for part in reversed(parts)) == whole


@given(st.lists(row_numbers, min_size=1, max_size=30), row_numbers, st.data())
def test_one_row_in_place_of_another_is_always_told(rows: list[int], other: int, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(rows) - 1))
    assume(rows[i] != other)
    assert digest_of([*rows[:i], other, *rows[i + 1 :]]) != digest_of(rows)


@given(st.lists(row_numbers, min_size=1, max_size=30))
def test_a_row_lost_or_repeated_is_always_told(rows: list[int]) -> None:
    assert digest_of(rows[1:]) != digest_of(rows)
    assert digest_of([*rows, rows[0]]) != digest_of(rows)


@given(st.integers(4, 2**31 - 1), st.data())
def test_two_rows_in_place_of_two_others_with_the_same_sum_are_told(total: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, total // 2)), data.draw(st.integers(0, total // 2))
    assume(a != b)
    assert digest_of([a, total - a]) != digest_of([b, total - b])


def test_a_shard_has_the_digest_of_its_global_rows() -> None:
    fragments = [Fragment("a", 0, 4), Fragment("b", 0, 5)]
    shards = list(shard_by_rows(fragments, World(2)).shards(fragments))
    assert [RowDigest.of_shard(shard) for shard in shards] == [digest_of([0, 1, 2, 3, 4]), digest_of([5, 6, 7, 8])]


def test_a_digest_is_written_as_rows_and_powers() -> None:
    assert str(RowDigest.of_range(0, 3)) == "3:" + "".join(f"{power:016x}" for power in (3, 5, 9))


def test_a_digest_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(PLANNED)) == PLANNED


def test_coverage_is_exact_where_what_was_planned_was_handed_over() -> None:
    DatasetCoverage(PLANNED, PLANNED).check("train")
    DatasetCoverage(PLANNED, PLANNED, library_rows=10).check("train")
    DatasetCoverage(PLANNED, PLANNED, 10, profiled_content=7, handed_content=7).check("train")


@pytest.mark.parametrize(
    "coverage",
    [
        DatasetCoverage(PLANNED, RowDigest.of_range(0, 9)),
        DatasetCoverage(PLANNED, RowDigest.of_range(1, 11)),
        DatasetCoverage(PLANNED, digest_of([0, 1, 2, 2, 4, 5, 6, 7, 8, 9])),
        DatasetCoverage(PLANNED, PLANNED, library_rows=9),
        DatasetCoverage(PLANNED, PLANNED, library_rows=0),
        DatasetCoverage(PLANNED, PLANNED, 10, profiled_content=7, handed_content=8),
        DatasetCoverage(PLANNED, PLANNED, 10, profiled_content=7, handed_content=None),
    ],
)
def test_coverage_that_is_not_exact_is_refused_and_names_the_dataset(coverage: DatasetCoverage) -> None:
    assert not coverage.exact
    with pytest.raises(CoverageError, match="auditing the rows of 'holdout': planned 10:"):
        coverage.check("holdout")


def test_coverage_of_workers_adds_up() -> None:
    parts = [RowDigest.of_range(0, 4), RowDigest.of_range(4, 10)]
    whole = DatasetCoverage(parts[0], parts[0], 4, 1, 1) + DatasetCoverage(parts[1], parts[1], 6, 2, 2)
    assert whole == DatasetCoverage(PLANNED, PLANNED, 10, 3, 3)
    whole.check("train")


def test_rows_that_the_library_does_not_count_on_one_worker_are_not_counted_at_all() -> None:
    whole = DatasetCoverage(PLANNED, PLANNED, 10) + DatasetCoverage(PLANNED, PLANNED, None)
    assert whole.library_rows is None


def test_a_row_lost_on_one_worker_and_repeated_on_another_is_told_in_the_sum() -> None:
    first = DatasetCoverage(RowDigest.of_range(0, 5), digest_of([0, 1, 2, 3]))
    second = DatasetCoverage(RowDigest.of_range(5, 10), digest_of([5, 6, 7, 8, 9, 9]))
    assert (first + second).handed.rows == 10
    with pytest.raises(CoverageError):
        (first + second).check("train")

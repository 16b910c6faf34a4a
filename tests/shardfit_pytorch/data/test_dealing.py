"""Each row once an epoch, the same steps on every rank, the same global batches at any number of ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardfit.coverage import RowDigest
from shardfit.errors import EmptyDataError, InvalidArgumentError
from shardfit_pytorch.data import Position
from tests.shardfit_pytorch.data.tables import Recorder, flat, global_batches, numbered, rank_of, ranks_of, rows_of


class Case(NamedTuple):
    sizes: list[int]
    world_size: int
    options: dict[str, Any]
    epoch: int

    @property
    def rows(self) -> int:
        return sum(self.sizes)


@st.composite
def cases(draw: st.DrawFn, dealing: str = "any") -> Case:
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8))
    world_size = draw(st.integers(1, 5))
    assume(sum(sizes) >= world_size)
    options: dict[str, Any] = {"shuffle": draw(st.booleans()), "seed": draw(st.integers(0, 3))}
    if dealing == "global" or (dealing == "any" and draw(st.booleans())):
        options["global_batch_size"] = draw(st.integers(2 * world_size, 2 * world_size + 30))
    else:
        options["batch_size"] = draw(st.integers(1, 20))
    return Case(sizes, world_size, options, draw(st.integers(0, 2)))


def epoch_of(case: Case, world_size: int | None = None, **more: Any) -> list[list[list[int]]]:
    """The rows of each rank's steps."""
    datasets = ranks_of(numbered(case.sizes), world_size or case.world_size, **case.options, **more)
    for dataset in datasets:
        dataset.set_epoch(case.epoch)
    return [rows_of(dataset) for dataset in datasets]


@given(cases())
def test_each_row_comes_once_and_ranks_take_the_same_steps(case: Case) -> None:
    ranks = epoch_of(case)
    assert len({len(steps) for steps in ranks}) == 1
    assert sorted(flat(global_batches(ranks))) == list(range(case.rows))
    for step in zip(*ranks, strict=True):
        lengths = [len(rows) for rows in step]
        assert min(lengths) > 0
        assert max(lengths) - min(lengths) <= 1


@given(cases())
def test_steps_have_the_size_that_was_asked_for_up_to_the_last(case: Case) -> None:
    ranks = epoch_of(case)
    whole = case.options.get("global_batch_size") or case.options["batch_size"] * case.world_size
    sizes = [len(rows) for rows in global_batches(ranks)]
    assert set(sizes[:-1]) <= {whole}
    assert sizes[-1] < 2 * whole
    assert len(rank_of(numbered(case.sizes), 0, case.world_size, **case.options)) == len(sizes)


@given(cases("global"), st.integers(1, 5))
def test_a_global_batch_is_the_same_at_any_number_of_ranks(case: Case, other: int) -> None:
    assume(case.rows >= other and case.options["global_batch_size"] >= 2 * other)
    assert global_batches(epoch_of(case)) == global_batches(epoch_of(case, other))


@given(cases())
def test_the_order_depends_on_seed_and_epoch_alone(case: Case) -> None:
    assert epoch_of(case) == epoch_of(case)
    one_rank = flat(flat(epoch_of(case, 1)))
    if "global_batch_size" in case.options:
        assert flat(global_batches(epoch_of(case))) == one_rank
    else:
        assert flat(flat(epoch_of(case))) == one_rank
    if not case.options["shuffle"]:
        assert one_rank == list(range(case.rows))


@given(cases(), st.integers(0, 30), st.integers(1, 5))
def test_an_epoch_goes_on_at_another_number_of_ranks(case: Case, interruption: int, other: int) -> None:
    source = numbered(case.sizes)
    before, done = ranks_of(source, case.world_size, **case.options), []
    for dataset in before:
        dataset.set_epoch(case.epoch)
        done += [batch["row"].tolist() for _, batch in zip(range(interruption), dataset, strict=False)]
    # Every rank is at the same place, and JSON carries it.
    assert len({dataset.state() for dataset in before}) == 1
    position = Position.from_json(before[0].state().to_json())
    left = sorted(set(range(case.rows)) - set(flat(done)))
    assert len(flat(done)) + len(left) == case.rows
    if position.epoch != case.epoch or interruption == 0:
        return
    assume(len(left) >= other and case.options.get("global_batch_size", 10) >= 2 * other)
    after = ranks_of(source, other, **case.options)
    for dataset in after:
        dataset.start_at(position)
    ranks = [rows_of(dataset) for dataset in after]
    assert sorted(flat(global_batches(ranks))) == left
    assert {dataset.state() for dataset in after} == {Position(case.epoch + 1, 0, case.rows, position.order)}
    if "global_batch_size" in case.options:
        assert global_batches(ranks) == global_batches(epoch_of(case))[interruption:]


@given(cases(), st.integers(1, 30))
def test_an_epoch_goes_on_at_the_same_number_of_ranks_as_if_it_had_not_stopped(case: Case, interruption: int) -> None:
    undisturbed = epoch_of(case)
    assume(interruption < len(undisturbed[0]))
    source = numbered(case.sizes)
    for rank, steps in enumerate(undisturbed):
        first = rank_of(source, rank, case.world_size, **case.options)
        first.set_epoch(case.epoch)
        for _ in zip(range(interruption), first, strict=False):
            pass
        second = rank_of(source, rank, case.world_size, **case.options)
        second.start_at(first.state().to_json())
        assert rows_of(second) == steps[interruption:]


@given(cases(), st.booleans(), st.booleans())
def test_what_is_left_out_is_counted_and_the_digest_knows(case: Case, equal: bool, drop: bool) -> None:
    if equal and "global_batch_size" in case.options:
        case.options["global_batch_size"] = 2 * case.world_size
    trackers = [Recorder() for _ in range(case.world_size)]
    try:
        datasets = [
            rank_of(
                numbered(case.sizes),
                rank,
                case.world_size,
                tracker=tracker,
                equal=equal,
                drop_last_batch=drop,
                **case.options,
            )
            for rank, tracker in enumerate(trackers)
        ]
    except EmptyDataError:
        assert drop
        return
    for dataset in datasets:
        dataset.set_epoch(case.epoch)
    ranks = [rows_of(dataset) for dataset in datasets]
    handed = flat(global_batches(ranks))
    assert len(set(handed)) == len(handed) == case.rows - datasets[0].dropped_rows
    digest = RowDigest.total(tracker.digest for tracker in trackers)
    assert digest == datasets[0].epoch_digest(case.epoch)
    if equal:
        assert len({len(flat(steps)) for steps in ranks}) == 1
        assert drop or datasets[0].dropped_rows < case.world_size
    if drop:
        assert len({len(rows) for rows in global_batches(ranks)}) == 1
    if not equal and not drop:
        assert digest == RowDigest.of_range(0, case.rows)


def test_three_interruptions_at_three_numbers_of_ranks_lose_no_row() -> None:
    source, seen, position = numbered([130, 7, 161]), [], None
    for world_size, steps in ((4, 3), (2, 5), (3, 4), (1, 1000)):
        datasets = ranks_of(source, world_size, batch_size=6, shuffle=True)
        for dataset in datasets:
            if position is not None:
                dataset.start_at(position)
            seen += [row for _, batch in zip(range(steps), dataset, strict=False) for row in batch["row"].tolist()]
        position = datasets[0].state()
    assert position == Position(1, 0, 298, "shuffled 0 0")
    assert sorted(seen) == list(range(298))


def test_fewer_rows_than_ranks_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="dealing 3 rows to 4 ranks"):
        rank_of(numbered([3]), 0, 4, batch_size=2)


def test_a_global_batch_that_would_leave_a_rank_empty_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="global_batch_size of 8 or more"):
        rank_of(numbered([100]), 0, 4, global_batch_size=6)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8"])
@pytest.mark.parametrize("name", ["batch_size", "global_batch_size"])
def test_a_size_that_is_none_is_an_error(name: str, size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        rank_of(numbered([100]), **{name: size})


def test_two_sizes_are_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="name one of them"):
        rank_of(numbered([100]), batch_size=2, global_batch_size=8)


def test_no_rows_are_an_error() -> None:
    with pytest.raises(EmptyDataError, match="no rows"):
        rank_of(numbered([0, 0]))


def test_dropping_every_row_is_an_error() -> None:
    with pytest.raises(EmptyDataError, match="fill no step of 20"):
        rank_of(numbered([19]), 0, 2, batch_size=10, drop_last_batch=True)

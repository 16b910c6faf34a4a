"""The shuffle: how far rows are moved, what it costs to read and to hold, and that it never changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shardfit.source import Fragment
from shardfit_pytorch.data.order import RowOrder
from tests.shardfit_pytorch.data.tables import flat, numbered, rank_of, rows_of

WIDE = pa.schema([(f"x{index}", pa.float64()) for index in range(200)])


def order_of(rows: int, sizes: int, seeds: tuple[int, ...] | None = (0, 0)) -> RowOrder:
    fragments = [Fragment("memory:0", index, sizes) for index in range(rows // sizes)]
    return RowOrder(fragments, WIDE, seeds)


def test_a_shuffle_is_the_same_on_every_machine_and_in_every_version() -> None:
    rows = flat(rows_of(rank_of(numbered([6, 10]), shuffle=True, seed=3)))
    assert rows == [11, 2, 12, 8, 13, 9, 15, 4, 7, 5, 6, 1, 3, 0, 10, 14]


def test_other_seeds_and_epochs_are_other_orders() -> None:
    orders = {
        tuple(order_of(200, 100, seeds).epoch(epoch).row_ids(0, 200))
        for seeds in ((0, 0), (0, 1), (1, 0), (-1, 0))
        for epoch in range(3)
    }
    assert len(orders) == 12


def test_a_table_that_fits_a_window_is_shuffled_without_a_trace_of_its_order() -> None:
    order = order_of(20_000, 1_000).epoch(0).row_ids(0, 20_000)
    assert sorted(order) == list(range(20_000))
    # Neighbours are as far apart as in a uniform permutation: a third of the table.
    assert np.abs(np.diff(order)).mean() == pytest.approx(20_000 / 3, rel=0.03)
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03


def test_a_batch_of_a_large_table_comes_from_sixteen_places() -> None:
    order = order_of(2_000_000, 20_000)
    epoch = order.epoch(0)
    window = epoch.window_at(1_000_000)
    assert sum(piece.stop - piece.start for piece in window) <= order.window_rows
    assert len({piece.fragment for piece in window}) >= 8
    batch = epoch.row_ids(1_000_000, 1_001_024)
    assert len(set((batch // 20_000).tolist())) >= 8


def test_windows_cover_each_position_once_also_where_a_piece_is_larger_than_a_window() -> None:
    order = order_of(4_000_000, 1_000_000)
    epoch, position, rows = order.epoch(5), 0, []
    while position < 4_000_000:
        pieces = epoch.window_at(position)
        assert pieces[0].position == position
        assert pieces == epoch.window_at(pieces[-1].position)
        position += sum(piece.stop - piece.start for piece in pieces)
        rows += [(piece.first_row, piece.stop - piece.start) for piece in pieces]
    rows.sort()
    assert [start for start, _ in rows] == [0, *np.cumsum([count for _, count in rows])[:-1]]


def test_no_window_is_larger_than_four_however_large_a_fragment_is() -> None:
    order = order_of(8_000_000, 8_000_000)
    epoch = order.epoch(0)
    sizes = [sum(piece.stop - piece.start for piece in epoch.window_at(at)) for at in range(0, 8_000_000, 50_000)]
    assert max(sizes) <= 4 * order.window_rows


@pytest.mark.parametrize("options", [{"batch_size": 16}, {"global_batch_size": 64}])
def test_a_fragment_is_read_once_without_a_shuffle_and_at_most_four_times_with_one(options: dict[str, int]) -> None:
    for shuffle, most in ((False, 1), (True, 4)):
        source = numbered([100, 250, 30])
        assert len(flat(rows_of(rank_of(source, 1, 2, shuffle=shuffle, **options)))) == 190
        assert max(source.reads.count(fragment) for fragment in range(3)) <= most
    source = numbered([100, 100])
    rows_of(rank_of(source, 0, 2, batch_size=16))
    # Rank 0 of 2 has nothing to do with the second half.
    assert source.reads == [0]

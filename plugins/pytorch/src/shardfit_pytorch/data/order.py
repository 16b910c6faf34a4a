"""The order of the rows of an epoch: a pure function of the table, the seeds and the epoch.

Without a shuffle it is the order of the table. The shuffle is block-wise, so that memory is bounded and reads stay
sequential: fragments are cut into pieces, the pieces are shuffled over the whole table, and rows are shuffled within
windows of consecutive pieces. It does not depend on the number of ranks, the batch size or the columns that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.row_hash import hash_rows
from shardfit.source import Fragment

Int64Array = npt.NDArray[np.int64]

WINDOW_BYTES = 64 * 2**20
_FEWEST_WINDOW_ROWS, _MOST_WINDOW_ROWS = 2**10, 2**20
# A piece is read by decoding its fragment up to its end: four pieces are 2.5 decodings of each row. There are more only
# where a piece would be larger than four windows.
_USUAL_PIECES = 4
_WINDOWS_A_PIECE = 4
_PIECES_A_WINDOW = 16
_PIECES, _ROWS = 0, 1


class Piece(NamedTuple):
    """Consecutive rows of one fragment, at consecutive positions unless a window shuffles them.

    Args:
        fragment: Position of the fragment in the table's list.
        start: First row within the fragment.
        stop: Row after the last one.
        position: Where in the order of the epoch the piece begins.
        first_row: Global row number of row `start`.
    """

    fragment: int
    start: int
    stop: int
    position: int
    first_row: int


class EpochOrder:
    """The order of one epoch.

    Args:
        columns: Fragment, start and stop of each piece, in the order of the epoch; int64, shape [3, pieces].
        first_rows: Global row number of the first row of each fragment; int64, shape [fragments].
        window_rows: Most rows of a window; None leaves the rows as they are.
        seeds: What the shuffle within windows depends on.
    """

    def __init__(
        self, columns: Int64Array, first_rows: Int64Array, window_rows: int | None, seeds: tuple[int, ...]
    ) -> None:
        self._fragment, self._start, self._stop = columns
        self._ends = np.cumsum(self._stop - self._start)
        self._first_rows = first_rows
        self._seeds = seeds
        self._windows = None if window_rows is None else _window_ends(self._ends, window_rows)

    @property
    def shuffled(self) -> bool:
        """Whether rows are shuffled within windows."""
        return self._windows is not None

    def piece_at(self, position: int) -> Piece:
        """Return the piece that holds a position."""
        return self._piece(int(np.searchsorted(self._ends, position, side="right")))

    def window_at(self, position: int) -> list[Piece]:
        """Return the pieces of the window that holds a position."""
        assert self._windows is not None
        window = int(np.searchsorted(self._windows, np.searchsorted(self._ends, position, side="right"), side="right"))
        first = int(self._windows[window - 1]) if window else 0
        return [self._piece(index) for index in range(first, int(self._windows[window]))]

    def shuffle(self, row_ids: Int64Array) -> Int64Array:
        """Return the order in which the rows of a window come: indices into `row_ids`; int64, shape [rows]."""
        # The hash of a row number is a bijection: there are no ties for the sort to break.
        return np.argsort(hash_rows(row_ids, *self._seeds, _ROWS))

    def row_ids(self, start: int, stop: int) -> Int64Array:
        """Return the global row numbers at the positions `start` to `stop` (exclusive); int64, shape [rows]."""
        found = [np.empty(0, dtype=np.int64)]
        while start < stop:
            pieces = self.window_at(start) if self.shuffled else [self.piece_at(start)]
            ids = np.concatenate([np.arange(piece.stop - piece.start) + piece.first_row for piece in pieces])
            ids = ids[self.shuffle(ids)] if self.shuffled else ids
            first = start - pieces[0].position
            taken = min(stop - start, len(ids) - first)
            found.append(ids[first : first + taken])
            start += taken
        return np.concatenate(found)

    def _piece(self, index: int) -> Piece:
        fragment, start, stop = (int(column[index]) for column in (self._fragment, self._start, self._stop))
        position = int(self._ends[index]) - (stop - start)
        return Piece(fragment, start, stop, position, int(self._first_rows[fragment]) + start)


class RowOrder:
    """The orders of all epochs of a table.

    Args:
        fragments: All of the table, in global row order.
        schema: All columns of the table; their width bounds a window.
        seeds: What a shuffle depends on beside the epoch; None leaves the rows in the order of the table.
    """

    def __init__(self, fragments: Sequence[Fragment], schema: pa.Schema, seeds: tuple[int, ...] | None) -> None:
        self._rows = np.fromiter((fragment.rows for fragment in fragments), dtype=np.int64, count=len(fragments))
        self._first_rows = np.cumsum(self._rows) - self._rows
        self._seeds = seeds
        width = sum(_width(column.type) for column in schema) or 1
        self.window_rows = min(max(WINDOW_BYTES // width, _FEWEST_WINDOW_ROWS), _MOST_WINDOW_ROWS)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return int(self._rows.sum())

    @property
    def name(self) -> str:
        """What tells this order from others: `table`, or `shuffled` with the seeds."""
        return "table" if self._seeds is None else " ".join(["shuffled", *map(str, self._seeds)])

    def epoch(self, epoch: int) -> EpochOrder:
        """Return the order of one epoch."""
        if self._seeds is None:
            filled = np.flatnonzero(self._rows)
            columns = np.stack([filled, np.zeros_like(filled), self._rows[filled]])
            return EpochOrder(columns, self._first_rows, None, ())
        columns = self._pieces()
        seeds = (*self._seeds, epoch)
        order = np.argsort(hash_rows(self._first_rows[columns[0]] + columns[1], *seeds, _PIECES))
        return EpochOrder(columns[:, order], self._first_rows, self.window_rows, seeds)

    def _pieces(self) -> Int64Array:
        wanted = max(self.window_rows // _PIECES_A_WINDOW, 1)
        counts = np.minimum(-(-self._rows // wanted), _USUAL_PIECES)
        counts = np.maximum(counts, -(-self._rows // (_WINDOWS_A_PIECE * self.window_rows)))
        fragment = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(fragment)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows, parts = self._rows[fragment], counts[fragment]
        size, rest = rows // np.maximum(parts, 1), rows % np.maximum(parts, 1)
        start = number * size + np.minimum(number, rest)
        return np.stack([fragment, start, start + size + (number < rest)])


def _window_ends(ends: Int64Array, window_rows: int) -> Int64Array:
    windows: list[int] = []
    first, position = 0, 0
    while first < len(ends):
        first = max(first + 1, int(np.searchsorted(ends, position + window_rows, side="right")))
        position = int(ends[first - 1])
        windows.append(first)
    return np.array(windows, dtype=np.int64)


def _width(kind: pa.DataType) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 16

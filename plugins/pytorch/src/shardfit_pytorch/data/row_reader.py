"""Reading positions of an epoch: fragments decoded in order, windows shuffled, a few MiB at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.errors import ChangedDataError
from shardfit.source import DataSource, Fragment
from shardfit_pytorch.data.columns import TensorColumns
from shardfit_pytorch.data.dealing import Range
from shardfit_pytorch.data.order import EpochOrder, Piece

Int64Array = npt.NDArray[np.int64]

BLOCK_BYTES = 4 * 2**20
# Decoded at once: the dictionary of a column's values is gone through a few times a row group and not once a block,
# beside a loop that takes the caches for itself.
_DECODED_BYTES = 4 * BLOCK_BYTES
_FEWEST_ROWS, _MOST_ROWS = 2**6, 2**17


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as blocks of memory.

    Args:
        blocks: As of `TensorColumns.empty`: one a type, of shape [columns, rows].
        row_ids: Global row numbers; int64, shape [rows].
    """

    blocks: tuple[npt.NDArray[Any], ...]
    row_ids: Int64Array

    def cut(self, start: int, stop: int) -> Rows:
        """Return rows `start` to `stop` (exclusive), as views."""
        return Rows(tuple(block[:, start:stop] for block in self.blocks), self.row_ids[start:stop])

    def pick(self, indices: Int64Array) -> Rows:
        """Return the rows of some indices, in their order, as copies."""
        blocks = tuple(np.empty((len(block), len(indices)), block.dtype) for block in self.blocks)
        for block, out in zip(self.blocks, blocks, strict=True):
            for column, picked in zip(block, out, strict=True):
                # The indices are in range; with "raise", NumPy would go through a buffer.
                np.take(column, indices, out=picked, mode="clip")
        return Rows(blocks, self.row_ids[indices])

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """Return rows one after another; one part alone is not copied."""
        if len(parts) == 1:
            return parts[0]
        blocks = tuple(np.concatenate(column, axis=-1) for column in zip(*(part.blocks for part in parts), strict=True))
        return cls(blocks, np.concatenate([part.row_ids for part in parts]))


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows at consecutive positions; `picks` is the order in which they stand there, or None where it is their own."""

    start: int
    rows: Rows
    picks: Int64Array | None

    @property
    def stop(self) -> int:
        return self.start + len(self.rows.row_ids)


class RowReader:
    """Reads the rows at some positions of an epoch, in the order in which they are asked for.

    Args:
        source: Where the rows are.
        fragments: All of the table, in global row order.
        columns: Which columns and how.
        order: What stands at which position.
    """

    def __init__(
        self, source: DataSource, fragments: Sequence[Fragment], columns: TensorColumns, order: EpochOrder
    ) -> None:
        self._source, self._fragments, self._columns, self._order = source, fragments, columns, order
        self._block_rows, self._decoded_rows = (_rows_of(size, columns) for size in (BLOCK_BYTES, _DECODED_BYTES))
        # The loop waits for the first block, and has nothing to compute meanwhile.
        self._next_rows = self._block_rows
        self._stream: _PieceStream | None = None

    def read(self, ranges: Iterable[Range]) -> Iterator[Rows]:
        """Yield the rows of ranges of positions, joined as it suits the reader.

        Raises:
            ChangedDataError: A fragment has not as many rows as were planned.
            UnreadableSourceError: A page is corrupt.
            InvalidValueError: A null where a tensor cannot hold one.
        """
        run: _Run | None = None
        wanted: list[Range] = []
        for start, stop in ranges:
            at = start
            while at < stop:
                if run is None or not run.start <= at < run.stop:
                    yield from self._take(run, wanted)
                    wanted = []
                    run = None  # Before the next one is there, or two windows are held.
                    run = self._run_at(at)
                end = min(stop, run.stop)
                first = at - run.start
                # Ranges that touch are one; here, since to look for them beforehand would be to go through all steps.
                if wanted and wanted[-1][1] == first:
                    first = wanted.pop()[0]
                wanted.append((first, end - run.start))
                at = end
        yield from self._take(run, wanted)

    def _take(self, run: _Run | None, wanted: Sequence[Range]) -> Iterator[Rows]:
        if run is None or not wanted:
            return
        if run.picks is None and len(wanted) == 1:
            yield run.rows.cut(*wanted[0])
            return
        indices = np.concatenate([np.arange(start, stop) for start, stop in wanted])
        if run.picks is not None:
            indices = run.picks[indices]
        for first in range(0, len(indices), self._block_rows):
            yield run.rows.pick(indices[first : first + self._block_rows])

    def _run_at(self, position: int) -> _Run:
        if self._order.shuffled:
            return self._read_window(self._order.window_at(position))
        if self._stream is None or not self._stream.position <= position < self._stream.end:
            self._stream = _PieceStream(self, self._order.piece_at(position), position)
        return self._stream.run_at(position)

    def _read_window(self, pieces: Sequence[Piece]) -> _Run:
        row_ids = np.concatenate([np.arange(piece.stop - piece.start) + piece.first_row for piece in pieces])
        blocks, done = self._columns.empty(len(row_ids)), 0
        for piece in pieces:
            for records in self.decode(piece):
                self._columns.fill(blocks, done, records, str(self._fragments[piece.fragment]))
                done += records.num_rows
        return _Run(pieces[0].position, Rows(tuple(blocks), row_ids), self._order.shuffle(row_ids))

    def decode(self, piece: Piece) -> Iterator[Any]:
        """Yield the records of a piece, which has exactly the rows that were planned."""
        fragment, done, planned = self._fragments[piece.fragment], 0, piece.stop - piece.start
        names = self._columns.names
        rows, self._next_rows = self._next_rows, self._decoded_rows
        for records in self._source.read(fragment, names, piece.start, piece.stop, rows):
            done += records.num_rows
            if done > planned:
                raise _miscounted(fragment, piece, f"at least {done}")
            if records.num_rows:
                yield records
        if done != planned:
            raise _miscounted(fragment, piece, str(done))

    def decode_blocks(self, piece: Piece) -> Iterator[Any]:
        """Yield what `decode` does, cut into blocks."""
        for records in self.decode(piece):
            for first in range(0, records.num_rows, self._block_rows):
                yield records.slice(first, self._block_rows)

    def convert(self, records: Any, row: int, fragment: int) -> Rows:
        """Return records as rows; `row` is the global number of the first."""
        blocks = self._columns.empty(records.num_rows)
        self._columns.fill(blocks, 0, records, str(self._fragments[fragment]))
        return Rows(tuple(blocks), np.arange(row, row + records.num_rows))


class _PieceStream:
    """One piece, decoded from a position on; what is not asked for is not converted."""

    def __init__(self, reader: RowReader, piece: Piece, position: int) -> None:
        skipped = position - piece.position
        self._piece = piece._replace(
            start=piece.start + skipped, position=position, first_row=piece.first_row + skipped
        )
        self._reader = reader
        self._records = reader.decode_blocks(self._piece)
        self.position = position
        self.end = position + self._piece.stop - self._piece.start

    def run_at(self, position: int) -> _Run:
        while True:
            records = next(self._records)
            start = self.position
            self.position += records.num_rows
            if position < self.position:
                row = self._piece.first_row + start - self._piece.position
                return _Run(start, self._reader.convert(records, row, self._piece.fragment), None)


def _rows_of(size: int, columns: TensorColumns) -> int:
    return min(max(size // max(columns.row_bytes, 1), _FEWEST_ROWS), _MOST_ROWS)


def _miscounted(fragment: Fragment, piece: Piece, found: str) -> ChangedDataError:
    return ChangedDataError(
        f"reading {fragment}, rows {piece.start} to {piece.stop}",
        f"found {found} rows where {piece.stop - piece.start} were planned",
        "The data changed after planning, or the source miscounts; plan again.",
    )

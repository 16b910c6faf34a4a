"""Reading a shard: batches of rows that carry their global row numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.coverage import RowDigest
from shardfit.errors import ChangedDataError
from shardfit.read_ahead import read_ahead
from shardfit.shard_plan import FragmentSlice, Shard
from shardfit.source import DataSource


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """Some rows of a shard.

    Args:
        row_ids: Global row numbers; int64, shape [rows].
        records: The rows themselves.
        origin: The fragment that they come from, for messages.
    """

    row_ids: npt.NDArray[np.int64]
    records: pa.RecordBatch
    origin: str


class ShardReader:
    """Reads one worker's shard of one dataset, any number of times.

    Args:
        dataset: Name of the dataset, `train` or that of an evaluation set.
        source: Where the rows are.
        shard: Which of them.
        columns: Which columns, in order.
        batch_rows: Most rows of a batch.
        on_rows: Called with the number of rows so far, now and then.
    """

    def __init__(
        self,
        dataset: str,
        source: DataSource,
        shard: Shard,
        columns: Sequence[str],
        batch_rows: int,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.dataset = dataset
        self.shard = shard
        self.columns = tuple(columns)
        self.handed = RowDigest()
        self.batch_rows = batch_rows
        self.source = source
        self._on_rows = on_rows

    @property
    def rows(self) -> int:
        """Number of rows of the shard."""
        return self.shard.rows

    def batches(self) -> Generator[ShardBatch]:
        """Yield every row of the shard once, in global row order; the next batch is decoded meanwhile.

        `handed` is the digest of the rows yielded by the latest pass.

        Raises:
            ChangedDataError: A fragment has not as many rows as were planned; said before a row too many is yielded.
            UnreadableSourceError: A page is corrupt.
        """
        self.handed = RowDigest()
        # Closed with this generator, so that no thread outlives a pass that is given up.
        with closing(read_ahead(self._decode(), depth=1)) as ahead:
            for batch in ahead:
                self.handed += RowDigest.of_rows(batch.row_ids)
                yield batch
                self._on_rows(self.handed.rows)

    def _decode(self) -> Iterator[ShardBatch]:
        for piece in self.shard.slices:
            yield from self._decode_slice(piece)

    def _decode_slice(self, piece: FragmentSlice) -> Iterator[ShardBatch]:
        done = 0
        for records in self.source.read(piece.fragment, self.columns, piece.start, piece.stop, self.batch_rows):
            first = piece.first_row + done
            done += records.num_rows
            if done > piece.rows:
                raise _miscounted(piece, f"at least {done}")
            if records.num_rows:
                row_ids = np.arange(first, first + records.num_rows, dtype=np.int64)
                yield ShardBatch(row_ids, records, str(piece.fragment))
        if done != piece.rows:
            raise _miscounted(piece, str(done))


def _miscounted(piece: FragmentSlice, found: str) -> ChangedDataError:
    return ChangedDataError(
        f"reading {piece.fragment}, rows {piece.start} to {piece.stop}",
        f"found {found} rows where {piece.rows} were planned",
        "The data changed after planning, or the source miscounts; plan again.",
    )

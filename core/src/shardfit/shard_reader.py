"""Reading a shard: batches of rows that carry their global row numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.batch_rows import even_rows
from shardfit.coverage import RowDigest
from shardfit.errors import ChangedDataError
from shardfit.read_ahead import read_ahead
from shardfit.shard_plan import FragmentSlice, Shard
from shardfit.source import DataSource

FEW_SLICES = 64
# A batch of less than this share of what it may have is joined with its neighbours.
_SMALL_SHARE = 4
MOST_JOINED_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """Some rows of a shard.

    Args:
        row_ids: Global row numbers; int64, shape [rows].
        records: The rows themselves.
        origins: How many rows come from which fragment, in their order, for messages.
    """

    row_ids: npt.NDArray[np.int64]
    records: pa.RecordBatch
    origins: tuple[tuple[int, str], ...]

    @property
    def origin(self) -> str:
        """The fragment that the rows come from, or the first and the last one."""
        first, last = self.origins[0][1], self.origins[-1][1]
        return first if len(self.origins) == 1 else f"{first} to {last}"

    def origin_of(self, row: int) -> str:
        """Return the fragment that a row comes from.

        Args:
            row: Its position in this batch.
        """
        ends = np.cumsum([rows for rows, _ in self.origins])
        return self.origins[int(np.searchsorted(ends, row, side="right"))][1]


class ShardReader:
    """Reads one worker's shard of one dataset, any number of times.

    Args:
        dataset: Name of the dataset, `train` or that of an evaluation set.
        source: Where the rows are.
        shard: Which of them.
        columns: Which columns, in order.
        batch_rows: About how many rows a batch has; those of a fragment are divided evenly.
        on_rows: Called with the number of rows so far, now and then.

    Attributes:
        rows: Number of rows of the shard.
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
        # Added up once, since a shard may have many slices.
        self.rows = shard.rows
        self._on_rows = on_rows

    def batches(self, ahead: int = 2) -> Generator[ShardBatch]:
        """Yield every row of the shard once, in global row order; the next batches are decoded meanwhile.

        Batches are as the source gives them. In a shard of more than 64 slices neighbours of few rows are joined: what
        comes after takes its time a batch, whatever its size, so many small files would cost as many large ones.

        `handed` is the digest of the rows yielded by the latest pass.

        Args:
            ahead: How many batches there may be beside the one yielded last. 1 is enough where decoding a batch is the
                shorter part.

        Raises:
            ChangedDataError: A fragment has not as many rows as were planned; said before a row too many is yielded.
            UnreadableSourceError: A page is corrupt.
        """
        self.handed = RowDigest()
        # Closed with this generator, so that no thread outlives a pass that is given up.
        with closing(read_ahead(self._decode(), ahead)) as batches:
            for batch in batches:
                self.handed += RowDigest.of_rows(batch.row_ids)
                yield batch
                self._on_rows(self.handed.rows)

    def _decode(self) -> Iterator[ShardBatch]:
        pieces = (batch for piece in self.shard.slices for batch in self._decode_slice(piece))
        return join_small(pieces, self.batch_rows) if len(self.shard.slices) > FEW_SLICES else pieces

    def _decode_slice(self, piece: FragmentSlice) -> Iterator[ShardBatch]:
        done, at_once = 0, even_rows(max(piece.rows, 1), self.batch_rows)
        for records in self.source.read(piece.fragment, self.columns, piece.start, piece.stop, at_once):
            first = piece.first_row + done
            done += records.num_rows
            if done > piece.rows:
                raise _miscounted(piece, f"at least {done}")
            if records.num_rows:
                row_ids = np.arange(first, first + records.num_rows, dtype=np.int64)
                yield ShardBatch(row_ids, records, ((records.num_rows, str(piece.fragment)),))
        if done != piece.rows:
            raise _miscounted(piece, str(done))


def join_small(batches: Iterable[ShardBatch], most_rows: int) -> Generator[ShardBatch]:
    """Yield the same rows in the same order, neighbours of few rows joined into batches of more.

    Args:
        batches: In global row order; those that were before an error are yielded before it is raised.
        most_rows: Most rows of a joined batch. A joined batch has at most 16 MiB, too.
    """
    waiting: list[ShardBatch] = []
    rows = size = 0
    try:
        for batch in batches:
            small = _is_small(batch, most_rows)
            count, taken = len(batch.row_ids), batch.records.nbytes if small else 0
            full = rows + count > most_rows or size + taken > MOST_JOINED_BYTES
            if waiting and (full or not small or not waiting[0].records.schema.equals(batch.records.schema)):
                yield _joined(waiting)
                waiting, rows, size = [], 0, 0
            if not small:
                yield batch
                continue
            waiting.append(batch)
            rows, size = rows + count, size + taken
    except Exception:
        if waiting:
            yield _joined(waiting)
        raise
    if waiting:
        yield _joined(waiting)


def _is_small(batch: ShardBatch, most_rows: int) -> bool:
    if len(batch.row_ids) * _SMALL_SHARE >= most_rows or batch.records.nbytes * _SMALL_SHARE >= MOST_JOINED_BYTES:
        return False
    return all(_can_be_joined(column.type) for column in batch.records.schema)


def _can_be_joined(kind: pa.DataType) -> bool:
    """Return whether columns of a type may be joined: dictionaries become one, whose indices must have room for it."""
    if not pa.types.is_dictionary(kind):
        return True
    return bool(kind.index_type.bit_width >= 32) and not pa.types.is_nested(kind.value_type)


def _joined(batches: Sequence[ShardBatch]) -> ShardBatch:
    if len(batches) == 1:
        return batches[0]
    records = pa.concat_batches([batch.records for batch in batches])
    origins = tuple(origin for batch in batches for origin in batch.origins)
    return ShardBatch(np.concatenate([batch.row_ids for batch in batches]), records, origins)


def _miscounted(piece: FragmentSlice, found: str) -> ChangedDataError:
    return ChangedDataError(
        f"reading {piece.fragment}, rows {piece.start} to {piece.stop}",
        f"found {found} rows where {piece.rows} were planned",
        "The data changed after planning, or the source miscounts; plan again.",
    )

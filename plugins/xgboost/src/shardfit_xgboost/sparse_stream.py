"""How XGBoost is walked through a shard of sparse features: compressed sparse rows, batch by batch, never made dense.

The bins come from the reference, as for dense rows. XGBoost walks three times: it counts the values of each column,
bins them, and lays out its column index. The last walk looks only at where values are, which is kept from the one
before it; where there is a single batch, labels are taken in the last walk, and the rows are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from scipy.sparse import csc_matrix, csr_matrix

from shardfit.errors import CoverageError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader
from shardfit.sparse import SparseRows
from shardfit_xgboost.row_stream import Kept

Float32Array = npt.NDArray[np.float32]

_BIN, _INDEX = 2, 3


class SparseStream(xgb.DataIter):  # type: ignore[misc]
    """Feeds one sparse shard to XGBoost; keeps the columns that are not binned.

    Args:
        reader: Yields the rows.
        interrupt: Holds Ctrl-C back.
        stand_ins: Whether the walk that looks at no value may be given none; not where XGBoost bins on a GPU.
    """

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt, stand_ins: bool) -> None:
        self.kept: list[Kept] = []
        self.values = 0
        self._reader = reader
        self._interrupt = interrupt
        self._stand_ins = stand_ins
        self._walk = self._whole_walks = 0
        self._places: list[SparseRows] = []
        self._batches: Iterator[MatrixBatch | SparseRows] = iter(())
        super().__init__()

    def close(self) -> None:
        """End the walk; the thread that reads ahead for it ends."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def reset(self) -> None:
        """Start a walk."""
        with self._interrupt.callback():
            self.close()
            self._walk += 1
            again = self._walk == _INDEX and len(self._places) > 1
            self._batches = iter(self._places) if again else self._read()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; an empty shard hands over one batch without rows."""
        with self._interrupt.callback():
            batch = next(self._batches, None)
            if batch is None:
                self._whole_walks += 1
                return False
            if isinstance(batch, SparseRows):
                input_data(data=as_csr(batch))
                return True
            given = {} if batch.base_margin is None else {"base_margin": batch.base_margin}
            input_data(data=as_csr(_sparse(batch)), label=batch.labels, **given)
            return True

    def check_walks(self, matrix: Any) -> None:
        """Check that XGBoost has walked as it must, and holds every value. Called when the matrix is made.

        Raises:
            CoverageError: It has not.
        """
        held = int(matrix.num_nonmissing())
        if (self._stand_ins and self._whole_walks != _INDEX) or held != self.values:
            raise CoverageError(
                f"binning {self._reader.shard.dataset!r} with XGBoost {xgb.__version__}",
                f"it walked {self._whole_walks} times through the rows and holds {held:,} of {self.values:,} values",
                f"{_INDEX} walks are expected: install a version that shardfit-xgboost declares.",
            )

    def _read(self) -> Generator[MatrixBatch]:
        self.kept, self.values, self._places = [], 0, []
        with closing(self._reader.batches()) as batches:
            for batch in batches:
                self._keep(batch)
                yield batch
        if not self.kept:
            batch = self._reader.no_rows()
            self._keep(batch)
            yield batch

    def _keep(self, batch: MatrixBatch) -> None:
        rows = _sparse(batch)
        self.kept.append(Kept.of(batch, with_missing=False))
        self.values += len(rows.values)
        if self._stand_ins and self._walk == _BIN:
            # Any value will do, and one of them takes no memory.
            there = np.broadcast_to(np.float32(0), rows.values.shape)
            self._places.append(SparseRows(rows.offsets, rows.indices, there, rows.features))


def as_csr(rows: SparseRows) -> Any:
    """Return rows as a SciPy matrix, which is not copied."""
    values = np.ascontiguousarray(rows.values)
    return csr_matrix((values, rows.indices, rows.offsets), shape=(rows.rows, rows.features), copy=False)


def cut_point_matrix(cut_points: Sequence[Float32Array]) -> Any:
    """Return a SciPy matrix with one column for each feature, which holds its cut points, and a last row of nothing."""
    lengths = np.array([len(points) for points in cut_points], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    rows = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths)
    values = np.concatenate([np.empty(0, dtype=np.float32), *cut_points])
    shape = (int(lengths.max(initial=0)) + 1, len(lengths))
    return csc_matrix((values, rows, offsets), shape=shape).tocsr()


def _sparse(batch: MatrixBatch) -> SparseRows:
    assert batch.sparse is not None
    return batch.sparse

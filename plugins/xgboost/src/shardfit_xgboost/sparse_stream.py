"""How XGBoost is walked through a shard of sparse features: compressed sparse rows, batch by batch, never made dense.

The bins come from the reference, as for dense rows. XGBoost walks three times: it counts the values of each column,
bins them, and lays out its column index. The last walk looks only at where values are, which is kept from the one
before it; where there is a single batch, labels are taken in the last walk, and the rows are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xgboost as xgb
from scipy.sparse import csc_matrix, csr_matrix

from shardfit.errors import CoverageError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader
from shardfit.sparse import SparseRows
from shardfit_xgboost.shard_stream import BIN, INDEX, Float32Array, Kept, ShardStream


class SparseStream(ShardStream):
    """Feeds one shard of sparse features to XGBoost; `reader`, `interrupt`, `stand_ins` are those of `ShardStream`."""

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt, stand_ins: bool) -> None:
        super().__init__(reader, interrupt, stand_ins)
        self.values = 0
        self._places: list[SparseRows] = []

    def check_walks(self, matrix: Any) -> None:
        """Check that XGBoost has walked as it must, and holds every value. Called when the matrix is made.

        Raises:
            CoverageError: It has not.
        """
        held = int(matrix.num_nonmissing())
        if (self._stand_ins and self._whole_walks != INDEX) or held != self.values:
            raise CoverageError(
                f"binning {self._reader.shard.dataset!r} with XGBoost {xgb.__version__}",
                f"it walked {self._whole_walks} times through the rows and holds {held:,} of {self.values:,} values",
                f"{INDEX} walks are expected: install a version that shardfit-xgboost declares.",
            )

    def _start(self) -> Iterator[MatrixBatch | SparseRows]:
        if self._walk == INDEX and len(self._places) > 1:
            return iter(self._places)
        return self._read()

    def _features(self, batch: MatrixBatch | SparseRows) -> dict[str, Any]:
        return {"data": as_csr(batch if isinstance(batch, SparseRows) else _sparse(batch))}

    def _keep(self, batch: MatrixBatch) -> None:
        rows = _sparse(batch)
        if not self.kept:
            self.values, self._places = 0, []
        self.kept.append(Kept.of(batch, with_missing=False))
        self.values += len(rows.values)
        if self._stand_ins and self._walk == BIN:
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

"""How a shard becomes a QuantileDMatrix: rows stream through a `RowStream`, bins come from the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.binned_trainer import BinReference
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixReader, MatrixSpec
from shardfit_xgboost.disk_cache import DiskCache
from shardfit_xgboost.row_stream import RowStream, feature_names
from shardfit_xgboost.shard_stream import Kept
from shardfit_xgboost.sparse_stream import SparseStream, cut_point_matrix

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShardMatrix:
    """One shard in XGBoost's own form, and what the library does not keep.

    Args:
        data: The binned matrix.
        row_ranges: First global row number of each run of adjacent rows, and the row after its last.
        outputs: Number of label columns.
        weights: float32, shape [rows], or None.
        groups: Where query groups start and the row after the last; int64, shape [groups + 1], or None.
        cache: Where its bins lie, if not in memory.
    """

    data: Any
    row_ranges: tuple[tuple[int, int], ...]
    outputs: int
    weights: Float32Array | None
    groups: Int64Array | None
    cache: DiskCache | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(stop - start for start, stop in self.row_ranges)

    @property
    def row_ids(self) -> Int64Array:
        """Global row numbers; int64, shape [rows]. Made anew, for they take more memory than the binned features."""
        ranges = [np.arange(start, stop, dtype=np.int64) for start, stop in self.row_ranges]
        return np.concatenate([np.empty(0, dtype=np.int64), *ranges])

    @property
    def labels(self) -> Float32Array:
        """The labels, as the library holds them; float32, shape [rows] or [rows, outputs]."""
        labels: Float32Array = self.data.get_label()
        return labels if self.outputs == 1 else labels.reshape(-1, self.outputs)


@dataclass(frozen=True)
class LibraryReference:
    """The bins in XGBoost's own form.

    Args:
        data: A matrix that holds nothing but the cut points.
        spec: What every matrix is made with.
    """

    data: Any
    spec: MatrixSpec


def open_reference(reference: BinReference) -> LibraryReference:
    """Return the reference matrix; must be made outside the communicator, or workers would sketch together.

    Column `j` holds the cut points of feature `j`, then missing values: at most `max_bin` different values a column,
    so that XGBoost makes each of them a cut of its own.
    """
    if reference.spec.sparse_features is not None:
        cuts = cut_point_matrix(reference.cut_points)
        return LibraryReference(xgb.QuantileDMatrix(cuts, max_bin=reference.spec.max_bin), reference.spec)
    rows = max([len(points) for points in reference.cut_points], default=0)
    # One row beyond the longest column keeps a matrix with all-missing columns from being empty.
    columns = np.full((len(reference.cut_points), rows + 1), np.nan, dtype=np.float32)
    for j, points in enumerate(reference.cut_points):
        columns[j, : len(points)] = points
    data = xgb.QuantileDMatrix(columns.T, max_bin=reference.spec.max_bin, **feature_names(reference.spec))
    return LibraryReference(data, reference.spec)


def ingest(
    reader: MatrixReader, reference: LibraryReference, threads: int, ranks: bool = False, *, on_gpu: bool = False
) -> ShardMatrix:
    """Return the matrix of a shard, binned by the reference. Rows are read once or more; see `RowStream`.

    Args:
        reader: Yields the rows.
        reference: The bins.
        threads: How many XGBoost may use.
        ranks: Whether the objective wants the groups. XGBoost's others refuse a matrix that has groups and weights.
        on_gpu: Whether this worker has a GPU.
    """
    if reader.spec.sparse_features is not None:
        return _ingest_sparse(reader, reference, threads, ranks, on_gpu=on_gpu)
    with HeldInterrupt() as interrupt, closing(RowStream(reader, interrupt, stand_ins=not on_gpu)) as rows:
        data = xgb.QuantileDMatrix(
            rows, ref=reference.data, max_bin=reference.spec.max_bin, nthread=threads, enable_categorical=True
        )
    rows.check_walks()
    return finish(data, rows.kept, reader.spec, ranks)


def _ingest_sparse(
    reader: MatrixReader, reference: LibraryReference, threads: int, ranks: bool, *, on_gpu: bool
) -> ShardMatrix:
    with HeldInterrupt() as interrupt, closing(SparseStream(reader, interrupt, stand_ins=not on_gpu)) as rows:
        data = xgb.QuantileDMatrix(rows, ref=reference.data, max_bin=reference.spec.max_bin, nthread=threads)
    rows.check_walks(data)
    return finish(data, rows.kept, reader.spec, ranks)


def finish(data: Any, kept: Sequence[Kept], spec: MatrixSpec, ranks: bool) -> ShardMatrix:
    """Return a matrix of the library with what it must be told once all rows are there.

    Args:
        data: The binned matrix.
        kept: What was kept of each batch.
        spec: What every matrix is made with.
        ranks: Whether the objective wants the groups.
    """
    matrix = _shard_matrix(data, kept, spec)
    groups, weights = matrix.groups if ranks else None, matrix.weights
    if groups is not None and matrix.rows:
        # Not batch by batch: XGBoost would begin a new group with each batch, wherever the rows were cut.
        data.set_group(np.diff(groups))
    if weights is not None:
        data.set_weight(weights if groups is None else weights[groups[:-1]])
    return matrix


def _shard_matrix(data: Any, kept: Sequence[Kept], spec: MatrixSpec) -> ShardMatrix:
    groups = None
    if spec.roles.group is not None:
        starts = np.concatenate([batch.group_starts for batch in kept if batch.group_starts is not None])
        groups = np.append(np.flatnonzero(starts), len(starts)).astype(np.int64)
    weights = [batch.weights for batch in kept if batch.weights is not None]
    return ShardMatrix(
        data,
        _adjacent([(batch.first[0], batch.first[0] + batch.rows) for batch in kept if batch.first]),
        len(spec.roles.label),
        np.concatenate(weights) if weights else None,
        groups,
    )


def _adjacent(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return tuple(joined)

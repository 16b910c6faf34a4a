"""How a shard becomes a QuantileDMatrix: rows stream through a DataIter, bins come from the reference."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.binned_trainer import BinReference
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader, MatrixSpec

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
    """

    data: Any
    row_ranges: tuple[tuple[int, int], ...]
    outputs: int
    weights: Float32Array | None
    groups: Int64Array | None

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
    rows = max([len(points) for points in reference.cut_points], default=0)
    # One row beyond the longest column keeps a matrix with all-missing columns from being empty.
    columns = np.full((len(reference.cut_points), rows + 1), np.nan, dtype=np.float32)
    for j, points in enumerate(reference.cut_points):
        columns[j, : len(points)] = points
    data = xgb.QuantileDMatrix(columns.T, max_bin=reference.spec.max_bin, **_names(reference.spec))
    return LibraryReference(data, reference.spec)


def ingest(reader: MatrixReader, reference: LibraryReference, threads: int, ranks: bool = False) -> ShardMatrix:
    """Return the matrix of a shard, binned by the reference. Rows are read once for each pass that XGBoost makes.

    Args:
        reader: Yields the rows.
        reference: The bins.
        threads: How many XGBoost may use.
        ranks: Whether the objective wants the groups. XGBoost's others refuse a matrix that has groups and weights.
    """
    with HeldInterrupt() as interrupt, closing(_RowStream(reader, interrupt)) as rows:
        data = xgb.QuantileDMatrix(
            rows, ref=reference.data, max_bin=reference.spec.max_bin, nthread=threads, enable_categorical=True
        )
    matrix = rows.matrix(data)
    groups, weights = matrix.groups if ranks else None, matrix.weights
    if groups is not None and matrix.rows:
        # Not batch by batch: XGBoost would begin a new group with each batch, wherever the rows were cut.
        data.set_group(np.diff(groups))
    if weights is not None:
        data.set_weight(weights if groups is None else weights[groups[:-1]])
    return matrix


class _RowStream(xgb.DataIter):  # type: ignore[misc]
    """Feeds one shard to XGBoost, which walks through it several times; keeps the columns that are not binned."""

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt) -> None:
        self._reader = reader
        self._interrupt = interrupt
        self._batches: Generator[MatrixBatch, None, None] | None = None
        self._handed: list[_Kept] = []
        self._kept: list[_Kept] = []
        super().__init__()

    def close(self) -> None:
        """End the pass; the thread that reads ahead for it ends."""
        if self._batches is not None:
            self._batches.close()

    def reset(self) -> None:
        """Start a pass."""
        with self._interrupt.callback():
            self.close()
            self._batches, self._handed = self._reader.batches(), []

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; an empty shard hands over one batch without rows."""
        with self._interrupt.callback():
            return self._next(input_data)

    def _next(self, input_data: Callable[..., None]) -> bool:
        if self._batches is None:
            self.reset()
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is None:
            if self._handed:
                self._kept = self._handed
                return False
            batch = self._reader.no_rows()
        self._handed.append(_Kept(batch.row_ids[:1].tolist(), len(batch.row_ids), batch.weights, batch.group_starts))
        given = {} if batch.base_margin is None else {"base_margin": batch.base_margin}
        input_data(data=batch.features, label=batch.labels, **given, **_names(self._reader.spec))
        return True

    def matrix(self, data: Any) -> ShardMatrix:
        """Return what was handed over in the last whole pass, beside the library's own matrix."""
        kept = self._kept
        groups = None
        if self._reader.spec.roles.group is not None:
            starts = np.concatenate([batch.group_starts for batch in kept if batch.group_starts is not None])
            groups = np.append(np.flatnonzero(starts), len(starts)).astype(np.int64)
        weights = [batch.weights for batch in kept if batch.weights is not None]
        return ShardMatrix(
            data,
            _adjacent([(batch.first[0], batch.first[0] + batch.rows) for batch in kept if batch.first]),
            len(self._reader.spec.roles.label),
            np.concatenate(weights) if weights else None,
            groups,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    first: list[int]
    rows: int
    weights: Float32Array | None
    group_starts: npt.NDArray[np.bool_] | None


def _adjacent(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return tuple(joined)


def _names(spec: MatrixSpec) -> dict[str, Any]:
    types = ["c" if cast.rule == "category" else "q" for cast in spec.feature_casts]
    return {"feature_names": list(spec.roles.features), "feature_types": types}

"""How XGBoost is walked through a shard: values once, and for the other walks only where they are missing.

XGBoost 3.2 walks through an iterator three times when it is given its bins on a CPU: it counts the values of each
column, bins them, and lays out its column index. The first and the last walk look at no value but to see whether it is
missing, so that stand-ins serve for them, and the shard is decoded once. Labels and base margins are taken in the
walk that bins, but in the last one where there is a single batch: such a shard is read in every walk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.batch_rows import even_rows
from shardfit.errors import ChangedDataError, CoverageError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader, MatrixSpec
from shardfit_xgboost.shard_stream import BIN, COUNT, INDEX, Float32Array, Kept, ShardStream


class RowStream(ShardStream):
    """Feeds one shard of dense features to XGBoost; `reader`, `interrupt`, `stand_ins` are those of `ShardStream`."""

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt, stand_ins: bool) -> None:
        super().__init__(reader, interrupt, stand_ins)
        sizes = planned_batches(reader) if stand_ins and reader.gapless else []
        self._sizes = sizes if len(sizes) > 1 else []
        self._used = False

    def check_walks(self) -> None:
        """Check that XGBoost has walked as it must for stand-ins to be right. Called when the matrix is made.

        Raises:
            CoverageError: It has not.
        """
        if self._used and self._whole_walks != INDEX:
            raise CoverageError(
                f"binning {self._reader.shard.dataset!r} with XGBoost {xgb.__version__}",
                f"it walked {self._whole_walks} times through the rows where {INDEX} walks were expected",
                "Install a version that shardfit-xgboost declares.",
            )

    def _start(self) -> Iterator[Float32Array | MatrixBatch]:
        features = len(self._reader.spec.roles.features)
        if self._walk == COUNT and self._sizes:
            self._used = True
            return stand_ins(features, ((rows, None) for rows in self._sizes))
        if self._walk == INDEX and self._stand_ins and len(self.kept) > 1:
            self._used = True
            return stand_ins(features, ((batch.rows, batch.missing) for batch in self.kept))
        return self._read()

    def _features(self, batch: Float32Array | MatrixBatch) -> dict[str, Any]:
        data = batch.features if isinstance(batch, MatrixBatch) else batch
        return {"data": data, **feature_names(self._reader.spec)}

    def _keep(self, batch: MatrixBatch) -> None:
        kept = Kept.of(batch, with_missing=self._stand_ins and self._walk == BIN)
        self.kept.append(kept)
        if self._sizes and kept.missing is not None:
            reject_missing(batch, self._reader)

    def _regrouped(self, batches: Iterable[MatrixBatch]) -> Iterable[MatrixBatch]:
        return regroup(batches, self._sizes) if self._sizes else batches


def reject_missing(batch: MatrixBatch, reader: MatrixReader) -> None:
    """Check that a batch of a shard that was gapless when it was profiled lacks no value.

    Raises:
        ChangedDataError: It does; says where.
    """
    if not batch.features.size or not np.isnan(batch.features.min()):
        return
    row, feature = np.argwhere(np.isnan(batch.features))[0]
    raise ChangedDataError(
        f"reading column {reader.spec.roles.features[feature]!r} of dataset {reader.shard.dataset!r}",
        f"no value is in row {int(batch.row_ids[row])}, and every row had one when the data was profiled",
        "The data changed while it was read; train again.",
    )


def feature_names(spec: MatrixSpec) -> dict[str, Any]:
    """Return the names and types of the features, as XGBoost's matrices take them."""
    types = ["c" if cast.rule == "category" else "q" for cast in spec.feature_casts]
    return {"feature_names": list(spec.roles.features), "feature_types": types}


def planned_batches(reader: MatrixReader) -> list[int]:
    """Return the rows of each batch, as a source gives them that cuts each slice as it is asked to; small ones joined.

    XGBoost's threads wait for each other several times a batch, whatever its size: many small files would cost as
    many large ones.
    """
    most = reader.shard.batch_rows
    slices = [(piece.rows, even_rows(piece.rows, most)) for piece in reader.shard.shard.slices if piece.rows]
    sizes: list[int] = []
    for size in (min(at_once, rows - start) for rows, at_once in slices for start in range(0, rows, at_once)):
        if sizes and sizes[-1] + size <= most:
            sizes[-1] += size
        else:
            sizes.append(size)
    return sizes


def regroup(batches: Iterable[MatrixBatch], sizes: Iterable[int]) -> Generator[MatrixBatch]:
    """Yield the rows of `batches` cut into `sizes`; nothing is copied where they are cut so already.

    Args:
        batches: Any number of rows each.
        sizes: Rows of each batch wanted, as many in all as `batches` have.
    """
    waiting: list[MatrixBatch] = []
    wanted = iter(sizes)
    size = next(wanted, 0)
    for batch in batches:
        waiting.append(batch)
        while size and sum(len(part.row_ids) for part in waiting) >= size:
            whole = _joined(waiting)
            yield _rows_of(whole, 0, size)
            rest = len(whole.row_ids) - size
            waiting = [_rows_of(whole, size, size + rest)] if rest else []
            size = next(wanted, 0)


def stand_ins(features: int, batches: Iterable[tuple[int, npt.NDArray[np.uint8] | None]]) -> Generator[Float32Array]:
    """Yield matrices that are zero where there is a value and NaN where there is none.

    Args:
        features: Number of columns.
        batches: Number of rows, and where values are missing, as `missing_bits` gives it.

    Yields:
        float32, shape [rows, features]; one value that is seen everywhere, if none is missing.
    """
    values = np.array([0, np.nan], dtype=np.float32)
    for rows, missing in batches:
        if missing is None:
            yield np.broadcast_to(values[0], (rows, features))
        else:
            bits = np.unpackbits(missing, count=rows * features)
            # The bits are in range; with "raise", NumPy would look.
            yield np.take(values, bits, mode="clip").reshape(rows, features)


def _joined(batches: list[MatrixBatch]) -> MatrixBatch:
    if len(batches) == 1:
        return batches[0]
    columns = {field.name: [getattr(batch, field.name) for batch in batches] for field in fields(MatrixBatch)}
    joined: dict[str, Any] = {
        name: None if parts[0] is None else np.concatenate(parts) for name, parts in columns.items()
    }
    return MatrixBatch(**joined)


def _rows_of(batch: MatrixBatch, start: int, stop: int) -> MatrixBatch:
    if start == 0 and stop == len(batch.row_ids):
        return batch
    columns = {field.name: getattr(batch, field.name) for field in fields(MatrixBatch)}
    cut: dict[str, Any] = {name: None if column is None else column[start:stop] for name, column in columns.items()}
    return MatrixBatch(**cut)

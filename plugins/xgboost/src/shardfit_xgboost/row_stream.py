"""How XGBoost is walked through a shard: values once, and for the other walks only where they are missing.

XGBoost 3.2 walks through an iterator three times when it is given its bins on a CPU: it counts the values of each
column, bins them, and lays out its column index. The first and the last walk look at no value but to see whether it is
missing, so that stand-ins serve for them, and the shard is decoded once. Labels and base margins are taken in the
walk that bins, but in the last one where there is a single batch: such a shard is read in every walk.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.errors import ChangedDataError, CoverageError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader, MatrixSpec

Float32Array = npt.NDArray[np.float32]

_COUNT, _BIN, _INDEX = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a batch that was handed over.

    Args:
        first: Its first global row number; empty where there is no row.
        rows: Number of rows.
        weights: float32, shape [rows], or None.
        group_starts: bool, shape [rows], or None.
        missing: Where features are missing, packed along the rows; uint8, shape [features, rows / 8]; None for nowhere.
    """

    first: list[int]
    rows: int
    weights: Float32Array | None
    group_starts: npt.NDArray[np.bool_] | None
    missing: npt.NDArray[np.uint8] | None

    @classmethod
    def of(cls, batch: MatrixBatch, *, with_missing: bool) -> Kept:
        """Return what is kept of `batch`."""
        missing = missing_bits(batch.features) if with_missing else None
        return cls(batch.row_ids[:1].tolist(), len(batch.row_ids), batch.weights, batch.group_starts, missing)


class RowStream(xgb.DataIter):  # type: ignore[misc]
    """Feeds one shard to XGBoost, which walks through it several times; keeps the columns that are not binned.

    Args:
        reader: Yields the rows.
        interrupt: Holds Ctrl-C back.
        stand_ins: Whether walks that look at no value may be given none; not where XGBoost bins on a GPU.
    """

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt, stand_ins: bool) -> None:
        self.kept: list[Kept] = []
        self._reader = reader
        self._interrupt = interrupt
        self._sizes = planned_batches(reader) if stand_ins and reader.gapless else []
        self._stand_ins = stand_ins
        self._used = False
        self._walk = self._whole_walks = 0
        self._handed: list[Kept] | None = None
        self._batches: Iterator[Float32Array | MatrixBatch] = iter(())
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
            self._handed = None
            self._batches = self._start()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; an empty shard hands over one batch without rows."""
        with self._interrupt.callback():
            batch = next(self._batches, None)
            if batch is None:
                self._end()
                return False
            names = feature_names(self._reader.spec)
            if isinstance(batch, np.ndarray):
                input_data(data=batch, **names)
                return True
            given = {} if batch.base_margin is None else {"base_margin": batch.base_margin}
            input_data(data=batch.features, label=batch.labels, **given, **names)
            return True

    def check_walks(self) -> None:
        """Check that XGBoost has walked as it must for stand-ins to be right. Called when the matrix is made.

        Raises:
            CoverageError: It has not.
        """
        if self._used and self._whole_walks != _INDEX:
            raise CoverageError(
                f"binning {self._reader.shard.dataset!r} with XGBoost {xgb.__version__}",
                f"it walked {self._whole_walks} times through the rows where {_INDEX} walks were expected",
                "Install a version that shardfit-xgboost declares.",
            )

    def _start(self) -> Iterator[Float32Array | MatrixBatch]:
        sizes = self._sizes if len(self._sizes) > 1 else []
        if self._walk == _COUNT and sizes:
            self._used = True
            return stand_ins(len(self._reader.spec.roles.features), ((rows, None) for rows in sizes))
        if self._walk == _INDEX and self._stand_ins and len(self.kept) > 1:
            self._used = True
            batches = ((batch.rows, batch.missing) for batch in self.kept)
            return stand_ins(len(self._reader.spec.roles.features), batches)
        self._handed = []
        return self._read(self._handed, sizes)

    def _read(self, handed: list[Kept], sizes: list[int]) -> Generator[MatrixBatch]:
        looks = self._stand_ins and self._walk == _BIN
        with closing(self._reader.batches()) as batches:
            for batch in regroup(batches, sizes) if sizes else batches:
                handed.append(Kept.of(batch, with_missing=looks))
                if sizes and handed[-1].missing is not None:
                    reject_missing(batch, self._reader)
                yield batch
        if not handed:
            batch = self._reader.no_rows()
            handed.append(Kept.of(batch, with_missing=looks))
            yield batch

    def _end(self) -> None:
        self._whole_walks += 1
        if self._handed is not None:
            self.kept, self._handed = self._handed, None


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
    slices = (piece.rows for piece in reader.shard.shard.slices)
    sizes: list[int] = []
    for size in (min(most, rows - start) for rows in slices for start in range(0, rows, most)):
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
        float32, shape [rows, features].
    """
    zeros = np.zeros((features, 0), dtype=np.float32)
    values = np.array([0, np.nan], dtype=np.float32)
    for rows, missing in batches:
        if missing is not None:
            yield values[np.unpackbits(missing, axis=1, count=rows)].T
            continue
        if zeros.shape[1] < rows:
            zeros = np.zeros((features, rows), dtype=np.float32)
        yield zeros[:, :rows].T


def missing_bits(features: Float32Array) -> npt.NDArray[np.uint8] | None:
    """Return where `features` (float32, shape [rows, features]) are NaN: uint8, shape [features, rows / 8], or None.

    None says that they are nowhere.
    """
    if not features.size or not np.isnan(features.min()):
        return None
    return np.packbits(np.isnan(features.T), axis=1)


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

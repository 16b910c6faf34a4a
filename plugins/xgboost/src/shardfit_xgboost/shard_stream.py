"""What XGBoost walks through, whatever its rows are: a shard, batch by batch, several times."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.allocators import give_back_memory
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixBatch, MatrixReader

Float32Array = npt.NDArray[np.float32]

# XGBoost counts the values of each column, bins them, and lays out its column index.
COUNT, BIN, INDEX = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a batch that was handed over.

    Args:
        first: Its first global row number; empty where there is no row.
        rows: Number of rows.
        weights: float32, shape [rows], or None.
        group_starts: bool, shape [rows], or None.
        missing: Where features are missing, row by row, in bits; uint8, shape [rows * features / 8]; None for nowhere.
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


class ShardStream(xgb.DataIter):  # type: ignore[misc]
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
        self._stand_ins = stand_ins
        self._walk = self._whole_walks = 0
        self._batches: Iterator[Any] = iter(())
        super().__init__()

    @abstractmethod
    def _start(self) -> Iterator[Any]:
        """Return what the walk `_walk` hands over: the rows, as `_read` gives them, or stand-ins for them."""

    @abstractmethod
    def _features(self, batch: Any) -> dict[str, Any]:
        """Return what XGBoost is told of the features of a batch or of its stand-in."""

    @abstractmethod
    def _keep(self, batch: MatrixBatch) -> None:
        """Keep what is not binned of a batch that is read."""

    def close(self) -> None:
        """End the walk; the thread that reads ahead for it ends."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def reset(self) -> None:
        """Start a walk."""
        with self._interrupt.callback():
            self.close()
            self._walk += 1
            self._batches = self._start()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; an empty shard hands over one batch without rows."""
        with self._interrupt.callback():
            batch = next(self._batches, None)
            if batch is None:
                self._whole_walks += 1
                return False
            given = self._features(batch)
            if isinstance(batch, MatrixBatch):
                given["label"] = batch.labels
                if batch.base_margin is not None:
                    given["base_margin"] = batch.base_margin
            input_data(**given)
            return True

    def _read(self) -> Generator[MatrixBatch]:
        self.kept, rows = [], 0
        with closing(self._reader.batches()) as batches:
            for batch in self._regrouped(batches):
                self._keep(batch)
                rows += len(batch.row_ids)
                if rows == self._reader.rows:
                    # With its last batch XGBoost allocates the column index; what decoding needed is of no more use.
                    give_back_memory()
                yield batch
        if not self.kept:
            batch = self._reader.no_rows()
            self._keep(batch)
            yield batch

    def _regrouped(self, batches: Iterable[MatrixBatch]) -> Iterable[MatrixBatch]:
        return batches


def missing_bits(features: Float32Array) -> npt.NDArray[np.uint8] | None:
    """Return where `features` (float32, shape [rows, features]) are NaN, as bits, row by row.

    Returns:
        uint8, shape [rows * features / 8]; None where none is NaN.
    """
    if not features.size or not np.isnan(features.min()):
        return None
    return np.packbits(np.isnan(features))

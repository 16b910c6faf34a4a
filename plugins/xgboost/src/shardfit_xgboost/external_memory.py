"""A shard whose bins lie on the local disk: the same bins as in memory, so the same model.

XGBoost 3.2 walks twice through the iterator of an `ExtMemQuantileDMatrix` that is given its bins on a CPU: it counts
the values of each column, then bins batch by batch and writes each batch as a page; it takes labels in both walks.
While it boosts, it maps a few pages at a time; gradients, labels and predictions stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.errors import CoverageError
from shardfit.interrupts import HeldInterrupt
from shardfit.matrix_reader import MatrixReader
from shardfit_xgboost.disk_cache import DiskCache
from shardfit_xgboost.matrix import LibraryReference, ShardMatrix, finish
from shardfit_xgboost.page_bytes import page_bytes
from shardfit_xgboost.row_stream import feature_names, reject_missing, stand_ins
from shardfit_xgboost.shard_stream import Kept
from shardfit_xgboost.storage import Storage

Float32Array = npt.NDArray[np.float32]

_COUNT, _BIN = 1, 2


def ingest(
    reader: MatrixReader, reference: LibraryReference, threads: int, ranks: bool, storage: Storage
) -> ShardMatrix:
    """Return the matrix of a shard, its bins on the disk. Rows are read twice, once where no value is missing.

    Args:
        reader: Yields the rows.
        reference: The bins.
        threads: How many XGBoost may use.
        ranks: Whether the objective wants the groups.
        storage: Where the cache lies, and how large a page is.

    Raises:
        CacheError: The disk is full, the cache's budget used up, or its folder removed.
    """
    cache = DiskCache.open(storage.folder, storage.budget)
    try:
        rows = storage.page_rows(len(reader.spec.roles.features))
        with (
            cache.explained(),
            HeldInterrupt() as interrupt,
            closing(PageStream(reader, interrupt, cache, rows)) as pages,
        ):
            data = xgb.ExtMemQuantileDMatrix(
                pages, ref=reference.data, max_bin=reference.spec.max_bin, nthread=threads, enable_categorical=True
            )
        pages.check_walks()
        return replace(finish(data, pages.kept, reader.spec, ranks), cache=cache)
    except BaseException:
        cache.close()
        raise


class PageStream(xgb.DataIter):  # type: ignore[misc]
    """Feeds one shard to XGBoost page by page; keeps the columns that are not binned.

    Args:
        reader: Yields the rows.
        interrupt: Holds Ctrl-C back.
        cache: Where XGBoost writes the pages.
        page_rows: Rows of a page, 1 or more.
    """

    def __init__(self, reader: MatrixReader, interrupt: HeldInterrupt, cache: DiskCache, page_rows: int) -> None:
        self.kept: list[Kept] = []
        self._reader = reader
        self._interrupt = interrupt
        self._cache = cache
        self._page_rows = min(page_rows, max(reader.rows, 1))
        self._walk = 0
        self._pages: Iterator[tuple[Float32Array, dict[str, Any]]] | None = None
        super().__init__(cache_prefix=cache.prefix("pages"))

    def close(self) -> None:
        """End the walk; the thread that reads ahead for it ends."""
        if isinstance(self._pages, Generator):
            self._pages.close()
        self._pages = None

    def reset(self) -> None:
        """Go back to the start. The walk begins with the first page, since XGBoost resets more often than it walks."""
        with self._interrupt.callback():
            self.close()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next page; an empty shard hands over one without rows."""
        with self._interrupt.callback():
            if self._pages is None:
                self._walk += 1
                self._pages = self._start()
            page = next(self._pages, None)
            if page is None:
                return False
            features, others = page
            input_data(data=features, **others, **feature_names(self._reader.spec))
            return True

    def check_walks(self) -> None:
        """Check that XGBoost has walked as it must for labels and stand-ins to be right.

        Raises:
            CoverageError: It has not.
        """
        if self._walk != _BIN:
            raise CoverageError(
                f"binning {self._reader.shard.dataset!r} with XGBoost {xgb.__version__}",
                f"it walked {self._walk} times through the rows where {_BIN} walks were expected",
                "Install a version that shardfit-xgboost declares.",
            )

    def _start(self) -> Iterator[tuple[Float32Array, dict[str, Any]]]:
        if self._walk == _COUNT and self._reader.gapless and self._reader.rows:
            sizes = [min(self._page_rows, self._reader.rows - i) for i in range(0, self._reader.rows, self._page_rows)]
            return ((page, {}) for page in stand_ins(len(self._reader.spec.roles.features), ((n, None) for n in sizes)))
        return self._read()

    def _read(self) -> Generator[tuple[Float32Array, dict[str, Any]]]:
        self.kept = []
        features = len(self._reader.spec.roles.features)
        page = np.empty((self._page_rows, features), dtype=np.float32)
        filled, waiting = 0, list[dict[str, Any]]()
        empty = True
        with closing(self._reader.batches()) as batches:
            for batch in batches:
                if self._reader.gapless:
                    reject_missing(batch, self._reader)
                self.kept.append(Kept.of(batch, with_missing=False))
                start, rows = 0, len(batch.row_ids)
                while start < rows:
                    stop = min(rows, start + self._page_rows - filled)
                    page[filled : filled + stop - start] = batch.features[start:stop]
                    waiting.append(_others(batch.labels[start:stop], batch.base_margin, start, stop))
                    filled, start, empty = filled + stop - start, stop, False
                    if filled == self._page_rows:
                        yield self._page(page, waiting)
                        filled, waiting = 0, []
        if filled:
            yield self._page(page[:filled], waiting)
        if empty:
            batch = self._reader.no_rows()
            self.kept.append(Kept.of(batch, with_missing=False))
            yield self._page(batch.features, [_others(batch.labels, batch.base_margin, 0, 0)])

    def _page(self, page: Float32Array, parts: list[dict[str, Any]]) -> tuple[Float32Array, dict[str, Any]]:
        if self._walk == _COUNT:
            return page, {}
        rows, features = page.shape
        # The page before is being written while this one is read.
        self._cache.check_room(2 * page_bytes(rows, features, self._reader.spec.max_bin, gapless=self._reader.gapless))
        return page, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _others(labels: Float32Array, margins: Float32Array | None, start: int, stop: int) -> dict[str, Any]:
    # Copies, since a view would keep the whole batch.
    given = {"label": labels.copy()}
    return given if margins is None else {**given, "base_margin": margins[start:stop].copy()}

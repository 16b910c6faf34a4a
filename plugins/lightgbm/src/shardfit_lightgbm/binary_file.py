"""Rows that are binned already reach LightGBM as its binary file, which lies in memory: LightGBM copies them.

LightGBM would find the bin of a value by a search whose branches a processor cannot foresee; see `bin_codes`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
from shardfit_lightgbm.bin_codes import Float32Array
from shardfit_lightgbm.binary_layout import BinaryColumn, BinaryLayout

# Values of a tile stay in a near cache while their codes are looked up.
_TILE_ROWS, _TILE_COLUMNS = 8192, 32


def load(
    layout: BinaryLayout,
    rows: int,
    blocks: Iterable[Float32Array],
    reference: Any,
    params: dict[str, Any],
    threads: int,
) -> Any:
    """Return a Dataset of some rows. Its file lies in memory until LightGBM has read it.

    Args:
        layout: Of the reference.
        rows: How many rows come.
        blocks: The rows; float32, shape [any even number, or what is left; features], rows contiguous.
        reference: The bins.
        params: Of the Dataset.
        threads: So many look codes up at a time.

    Raises:
        InvalidArgumentError: Another number of rows came.
    """
    with _memory(layout.size(rows)) as (path, file):
        places = layout.begin(file, rows)
        with ThreadPoolExecutor(threads) as pool:
            row, writing = 0, list[Future[None]]()
            for block in blocks:
                # The next block is read meanwhile.
                _wait(writing)
                if (row := row + len(block)) > rows:
                    break
                writing = _write_block(pool, layout.columns, block, places, row - len(block))
            _wait(writing)
        if row != rows:
            raise InvalidArgumentError("binning a shard", f"{row} rows came of {rows}")
        return lgb.Dataset(path, params=dict(params), reference=reference).construct()


def _write_block(
    pool: ThreadPoolExecutor,
    columns: Sequence[BinaryColumn],
    block: Float32Array,
    places: Sequence[npt.NDArray[np.uint8]],
    row: int,
) -> list[Future[None]]:
    return [
        pool.submit(
            _write_tile,
            columns[column : column + _TILE_COLUMNS],
            block[first : first + _TILE_ROWS],
            places[column : column + _TILE_COLUMNS],
            row + first,
        )
        for first in range(0, len(block), _TILE_ROWS)
        for column in range(0, len(columns), _TILE_COLUMNS)
    ]


def _wait(writing: Iterable[Future[None]]) -> None:
    for tile in writing:
        tile.result()


def _write_tile(
    columns: Sequence[BinaryColumn], values: Float32Array, places: Sequence[npt.NDArray[np.uint8]], row: int
) -> None:
    first, last = columns[0].feature, columns[-1].feature
    features = np.ascontiguousarray(values[:, first : last + 1].T)
    for column, place in zip(columns, places, strict=True):
        column.write(features[column.feature - first], place, row)


@contextmanager
def _memory(size: int) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    if sys.platform == "linux":
        descriptor = os.memfd_create("shardfit-bins")
        try:
            os.ftruncate(descriptor, size)
            path = f"/proc/self/fd/{descriptor}"
            yield path, np.memmap(path, dtype=np.uint8, mode="r+", shape=(size,))
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="shardfit-bins-") as file:
            yield file.name, np.memmap(file.name, dtype=np.uint8, mode="w+", shape=(size,))

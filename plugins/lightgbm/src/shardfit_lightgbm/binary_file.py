"""Rows that are binned already reach LightGBM as its binary file, which lies in memory: LightGBM copies them.

LightGBM would find the bin of a value by a search whose branches a processor cannot foresee; see `bin_codes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError
from shardfit_lightgbm.bin_codes import Float32Array
from shardfit_lightgbm.binary_layout import BinaryColumn, BinaryLayout
from shardfit_lightgbm.memory_file import memory_file

# Values of a tile stay in a near cache while their codes are looked up.
_TILE_ROWS, _TILE_COLUMNS = 8192, 32


class Columns(Protocol):
    """Some rows by their columns; `shardfit.matrix_reader.FeatureColumns` is one."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def column(self, feature: int, start: int, stop: int) -> Float32Array:
        """Return the values of a feature from row `start` to `stop` (exclusive); contiguous, NaN where missing."""


def load(
    layout: BinaryLayout,
    rows: int,
    batches: Iterable[Columns],
    reference: Any,
    params: dict[str, Any],
    threads: int,
) -> Any:
    """Return a Dataset of some rows. Its file lies in memory until LightGBM has read it.

    Args:
        layout: Of the reference.
        rows: How many rows come.
        batches: The rows, some after the others.
        reference: The bins.
        params: Of the Dataset.
        threads: So many look codes up at a time.

    Raises:
        InvalidArgumentError: Another number of rows came.
    """
    with memory_file(layout.size(rows)) as file:
        _fill(layout, file.content, rows, batches, threads)
        with file.given_back_as_it_is_read():
            return lgb.Dataset(file.path, params=dict(params), reference=reference).construct()


def _fill(
    layout: BinaryLayout, content: npt.NDArray[np.uint8], rows: int, batches: Iterable[Columns], threads: int
) -> None:
    places = layout.begin(content, rows)
    with ThreadPoolExecutor(threads) as pool:
        row, writing = 0, list[Future[None]]()
        for values in batches:
            # This batch was read meanwhile.
            _wait(writing)
            if (row := row + len(values)) > rows:
                break
            writing = _write(pool, layout.columns, values, places, row - len(values))
        _wait(writing)
    if row != rows:
        raise InvalidArgumentError("binning a shard", f"{row} rows came of {rows}")


def _write(
    pool: ThreadPoolExecutor,
    columns: Sequence[BinaryColumn],
    values: Columns,
    places: Sequence[npt.NDArray[np.uint8]],
    row: int,
) -> list[Future[None]]:
    # Tiles begin at even rows, for two rows may share a byte.
    starts = [0, *range(_TILE_ROWS - row % 2, len(values), _TILE_ROWS), len(values)]
    return [
        pool.submit(
            _write_tile,
            columns[column : column + _TILE_COLUMNS],
            values,
            slice(first, end),
            places[column : column + _TILE_COLUMNS],
            row + first,
        )
        for first, end in pairwise(starts)
        for column in range(0, len(columns), _TILE_COLUMNS)
    ]


def _wait(writing: Iterable[Future[None]]) -> None:
    for tile in writing:
        tile.result()


def _write_tile(
    columns: Sequence[BinaryColumn],
    values: Columns,
    part: slice,
    places: Sequence[npt.NDArray[np.uint8]],
    row: int,
) -> None:
    for column, place in zip(columns, places, strict=True):
        column.write(values.column(column.feature, part.start, part.stop), place, row)

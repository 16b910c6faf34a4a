"""What a worker's memory goes to, before it is spent."""

from __future__ import annotations

from shardfit.trainer import DataShape
from shardfit.worker import batch_rows
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.page_bytes import bin_bytes, page_bytes

_PROCESS = 260 * 2**20
_BATCHES_HELD = 4
_PAGES_HELD = 4


def estimate_memory(config: XGBConfig, shape: DataShape) -> dict[str, int]:
    """Return the expected peak bytes of one worker by part.

    A dense matrix takes one byte a cell for up to 256 bins, else two, for the row-wise index and again for the
    column-wise one; missing values, which the plan cannot see, widen the row-wise index to four. With the matrix on the
    disk, a few pages are mapped, and one is filled.

    Args:
        config: The trainer's configuration.
        shape: Size of the data.
    """
    outputs = max(config.objective.classes, 1)
    rows = shape.rows + shape.eval_rows
    return {
        "process": _PROCESS,
        "matrix": _matrix(config, shape),
        "labels": 16 * rows,
        "gradients": 8 * outputs * shape.rows,
        "predictions": 8 * outputs * rows,
        "batches": _BATCHES_HELD * 4 * batch_rows(shape.features) * shape.features,
        "sample": 4 * min(shape.total_rows, 200_000) * shape.features,
    }


def _matrix(config: XGBConfig, shape: DataShape) -> int:
    if config.storage.on_disk:
        rows = config.storage.page_rows(shape.features)
        page = page_bytes(rows, shape.features, config.max_bin, gapless=False)
        return config.storage.page_bytes + _PAGES_HELD * page
    width = bin_bytes(config.max_bin)
    return 2 * width * shape.rows * shape.features + width * shape.eval_rows * shape.features

"""What a worker's memory goes to, before it is spent; the figures are fitted to `benchmarks/memory_plan.py`."""

from __future__ import annotations

from shardfit.data_shape import DataShape
from shardfit.memory_plan import MemoryPart
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.page_bytes import matrix_bytes, page_bytes

_LIBRARY = 115 * 2**20
_PAGES = 4


def estimate_memory(config: XGBConfig, shape: DataShape) -> list[MemoryPart]:
    """Return what XGBoost's memory goes to on the largest worker.

    Args:
        config: The trainer's configuration.
        shape: Size of the data.
    """
    outputs = max(config.objective.classes, 1)
    rows = shape.rows + shape.eval_rows
    return [
        MemoryPart("library", _LIBRARY, "XGBoost itself"),
        *(_pages(config, shape) if config.storage.on_disk else _matrices(config, shape)),
        MemoryPart("labels", 8 * rows, "labels and weights, 4 bytes a row each", ("ingest", "fit")),
        MemoryPart(
            "gradients",
            8 * outputs * shape.rows,
            "gradient and hessian of each row and class, 4 bytes each",
            ("fit",),
        ),
        MemoryPart("rows", 8 * shape.rows, "which leaf each row is in", ("fit",)),
        MemoryPart(
            "predictions",
            8 * outputs * rows,
            "margins of each row and class, and predictions made from them, 4 bytes each",
            ("fit",),
        ),
        MemoryPart(
            "histograms",
            16 * 2 ** min(int(config.params.get("max_depth", 6) or 6), 10) * shape.features * config.max_bin,
            "sums of gradients for each bin of each leaf of a level, 16 bytes each",
            ("fit",),
        ),
    ]


def _matrices(config: XGBConfig, shape: DataShape) -> list[MemoryPart]:
    train, others = (
        matrix_bytes(rows, shape.features, config.max_bin, gapless=shape.gapless)
        for rows in (shape.rows, shape.eval_rows)
    )
    gaps = "no value is missing" if shape.gapless else "values are missing"
    why = f"bins of the {{}} by row and by column, as {gaps}"
    return [
        MemoryPart("matrix", train, why.format("training data"), ("ingest", "fit")),
        MemoryPart("evaluation sets", others, why.format("evaluation sets"), ("ingest", "fit")),
    ]


def _pages(config: XGBConfig, shape: DataShape) -> list[MemoryPart]:
    storage, features = config.storage, shape.features
    rows = min(storage.page_rows(features), max(shape.rows, 1))
    page = page_bytes(rows, features, config.max_bin, gapless=shape.gapless)
    count = -(-shape.rows // rows) + -(-shape.eval_rows // rows)
    return [
        MemoryPart("page", 4 * rows * features, f"a page of {rows:,} rows while it is filled", ("ingest",)),
        MemoryPart("pages", min(_PAGES, count) * page, f"{_PAGES} pages of bins at a time", ("ingest", "fit")),
        MemoryPart("disk cache", count * page, "the bins by row and by column, on the local disk", ()),
    ]

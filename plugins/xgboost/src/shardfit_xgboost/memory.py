"""What a worker's memory goes to, before it is spent; the figures are fitted to `benchmarks/memory_plan.py`."""

from __future__ import annotations

from shardfit.data_shape import DataShape
from shardfit.memory_plan import MemoryPart
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.page_bytes import matrix_bytes, page_bytes, sparse_matrix_bytes

_LIBRARY = 115 * 2**20
# While the matrix is made, one page of bins is written to the disk and the next one is made.
_PAGES = 2


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
        MemoryPart(
            "rows",
            24 * shape.rows,
            "rows by the leaf they are in, 8 bytes each, and twice as much while leaves are divided",
            ("fit",),
        ),
        MemoryPart(
            "predictions",
            8 * outputs * rows,
            "margins of each row and class, and predictions made from them, 4 bytes each",
            ("fit",),
        ),
        MemoryPart(
            "histograms",
            16 * 2 ** min(int(config.params.get("max_depth", 6) or 6), 10) * _bins(config, shape),
            "sums of gradients for each bin of each leaf of a level, 16 bytes each",
            ("fit",),
        ),
    ]


def _bins(config: XGBConfig, shape: DataShape) -> int:
    if shape.values is None:
        return shape.features * config.max_bin
    # How many values differ is known once they have been read; nothing is refused before for what may not come.
    return min(shape.features, shape.total_values) if shape.bins is None else shape.bins


def _sparse_matrices(shape: DataShape) -> list[MemoryPart]:
    why = "bins of the {:,} values of the {} by row and by column, 16 bytes each, and 8 bytes a row"
    sizes = {"matrix": (shape.rows, shape.values or 0), "evaluation sets": (shape.eval_rows, shape.eval_values)}
    return [
        *(
            MemoryPart(
                name,
                sparse_matrix_bytes(rows, values),
                why.format(values, "training data" if name == "matrix" else name),
                ("ingest", "fit"),
            )
            for name, (rows, values) in sizes.items()
        ),
        MemoryPart(
            "features", 300 * shape.features, "cut points of each feature, and where they are", ("ingest", "fit")
        ),
        MemoryPart("cut points", 200 * shape.features, "cut points on their way into XGBoost", ("ingest",)),
        MemoryPart(
            "places",
            4 * (shape.values or 0) + 8 * shape.rows,
            "where values are, until they are laid out by column",
            ("ingest",),
        ),
    ]


def _matrices(config: XGBConfig, shape: DataShape) -> list[MemoryPart]:
    if shape.values is not None:
        return _sparse_matrices(shape)
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
        MemoryPart("pages", min(_PAGES, count) * page, f"{_PAGES} pages of bins at a time", ("ingest",)),
        MemoryPart("mapped page", page, "a page of bins at a time, mapped from the local disk", ("fit",)),
        MemoryPart("disk cache", count * page, "the bins by row and by column, on the local disk", ()),
    ]

"""What a worker's memory goes to, before it is spent; the figures are fitted to `benchmarks/memory_plan.py`."""

from __future__ import annotations

from shardfit.data_shape import DataShape
from shardfit.errors import InvalidArgumentError
from shardfit.memory_plan import MemoryPart
from shardfit_lightgbm.bin_codes import TABLES_BYTES
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.direction import asks_for_columns, may_sum_by_rows

MOST_ROWS = 2**31 - 1

_LIBRARY = 110 * 2**20
_READ_BYTES = 16 * 2**20
# LightGBM copies the columns that a tree may use where they are a smaller share of all than this.
_COPIED_COLUMNS_BELOW = 0.6
# It copies the rows that it draws where they are at most this share of all; of those that it draws by their labels, a
# round's part counts, and there must be fewer features than this.
_MOST_COPIED_ROWS, _MANY_FEATURES = 0.5, 100


def check_shape(shape: DataShape) -> None:
    """Check that LightGBM, which counts rows in 32 bits, can hold the largest shards.

    Raises:
        InvalidArgumentError: A shard has too many rows; says how many workers would do.
    """
    rows = max(shape.rows, shape.eval_rows)
    if rows > MOST_ROWS:
        workers = -(-shape.total_rows // MOST_ROWS)
        raise InvalidArgumentError(
            f"training on shards of up to {rows:,} rows",
            f"LightGBM holds at most {MOST_ROWS:,} rows on one worker",
            f"Use {max(workers, 2)} workers or more.",
        )


def estimate_memory(config: LightGBMConfig, shape: DataShape) -> list[MemoryPart]:
    """Return what LightGBM's memory goes to on the largest worker.

    Args:
        config: The trainer's configuration.
        shape: Size of the data.
    """
    width = 1 if config.max_bin <= 256 else 2
    rows = shape.rows + shape.eval_rows
    why = f"bins of the {{}}, {width} {'byte' if width == 1 else 'bytes'} each"
    # One worker alone has a second learner beside it; see `second_machine`.
    learners = 2 if config.trains_as_two and shape.rows == shape.total_rows else 1
    leaves = int(config.params.get("num_leaves", 31))
    return [
        MemoryPart("library", _LIBRARY, "LightGBM itself"),
        MemoryPart(
            "tables",
            TABLES_BYTES + _READ_BYTES,
            "tables that bins are looked up in, and LightGBM's buffer to read them",
            ("ingest",),
        ),
        MemoryPart("matrix", width * shape.rows * shape.features, why.format("training data"), ("ingest", "fit")),
        MemoryPart(
            "evaluation sets",
            width * shape.eval_rows * shape.features,
            why.format("evaluation sets"),
            ("ingest", "fit"),
        ),
        MemoryPart("labels", 16 * rows, "labels twice and weights twice, 4 bytes a row each", ("ingest", "fit")),
        *_gradients(config, shape),
        *_copies_of_bins(config, shape, width),
        MemoryPart("rows", 8 * shape.rows, "which leaf each row is in, 4 bytes, twice", ("fit",)),
        *_row_numbers(config, shape),
        MemoryPart(
            "histograms",
            16 * learners * leaves * shape.features * config.max_bin,
            "sums of gradients for each bin of each leaf, 16 bytes each"
            + (", twice: a worker without peers trains as two" if learners == 2 else ""),
            ("fit",),
        ),
    ]


def _copies_of_bins(config: LightGBMConfig, shape: DataShape, width: int) -> list[MemoryPart]:
    """Return what LightGBM copies of the bins: row after row, and of the rows and columns that it draws."""
    params, bins = config.params, width * shape.rows * shape.features
    by_rows = may_sum_by_rows(shape.features, config.max_bin) and not asks_for_columns(params)
    parts = []
    if by_rows:
        why = "bins of the training data once more, row after row, where histograms are summed up by rows"
        parts.append(MemoryPart("laid out by rows", bins, why, ("fit",)))
        if (drawn := float(params.get("feature_fraction", 1.0))) < _COPIED_COLUMNS_BELOW:
            why = f"the same of the columns that a tree may use, {drawn:.0%} of them"
            parts.append(MemoryPart("drawn columns", int(drawn * bins), why, ("fit",)))
    if share := _copied_rows(config, shape.features):
        why = f"bins of the rows that a round has drawn, {share:.0%} of them" + (", laid out twice" if by_rows else "")
        parts.append(MemoryPart("drawn rows", int((1 + by_rows) * share * bins), why, ("fit",)))
    return parts


def _row_numbers(config: LightGBMConfig, shape: DataShape) -> list[MemoryPart]:
    """Return what rows are drawn with."""
    if config.bagging is not None:
        why = "global row numbers, which a round's rows are drawn by, 8 bytes each"
        return [MemoryPart("row numbers", 8 * shape.rows, why, ("ingest", "fit"))]
    why = "numbers of the rows that LightGBM has drawn, 4 bytes, three times"
    return [MemoryPart("row numbers", 12 * shape.rows, why, ("fit",))] if config.chooses_rows else []


def _copied_rows(config: LightGBMConfig, features: int) -> float:
    """Return the largest share of the rows that LightGBM may copy; 0 where it only points at those that it draws.

    Source: `GOSSStrategy` and `BaggingSampleStrategy::ResetSampleConfig` of LightGBM.
    """
    params = config.params
    if config.samples_by_gradient:
        share = float(params.get("top_rate", 0.2)) + float(params.get("other_rate", 0.1))
        return share if share <= _MOST_COPIED_ROWS else 0.0
    if not config.native_bagging or features >= _MANY_FEATURES:
        return 0.0
    by_class = ("pos_bagging_fraction", "neg_bagging_fraction")
    names = by_class if any(name in params for name in by_class) else ("bagging_fraction",)
    shares = [float(params.get(name, 1.0)) for name in names]
    # What share of the rows has which label is not known here.
    most = _MOST_COPIED_ROWS * int(params["bagging_freq"])
    return min(max(shares), most) if min(shares) <= most else 0.0


def _gradients(config: LightGBMConfig, shape: DataShape) -> list[MemoryPart]:
    classes = config.objective.classes
    # Those that shardfit computes lie there besides, with copies of the scores that they come from.
    gradient, score = (24, 32) if config.summable else (16, 16)
    return [
        MemoryPart(
            "gradients",
            gradient * classes * shape.rows,
            f"gradient and hessian of each row and class, {gradient // 8} times",
            ("fit",),
        ),
        MemoryPart(
            "scores",
            classes * (score * shape.rows + 16 * shape.eval_rows),
            f"scores and predictions of each row and class, {score // 8} times 8 bytes",
            ("fit",),
        ),
    ]

"""What a worker's memory goes to, before it is spent."""

from __future__ import annotations

from shardfit.errors import InvalidArgumentError
from shardfit.trainer import DataShape
from shardfit.worker import batch_rows
from shardfit_lightgbm.config import LightGBMConfig

MOST_ROWS = 2**31 - 1

_PROCESS = 260 * 2**20
_BATCHES_HELD = 4


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


def estimate_memory(config: LightGBMConfig, shape: DataShape) -> dict[str, int]:
    """Return the expected peak bytes of one worker by part.

    A matrix takes one byte a cell for up to 256 bins, else two.

    Args:
        config: The trainer's configuration.
        shape: Size of the data.
    """
    classes = config.objective.classes
    width = 1 if config.max_bin <= 256 else 2
    rows = shape.rows + shape.eval_rows
    return {
        "process": _PROCESS,
        "matrix": width * rows * shape.features,
        "labels": 24 * rows,
        "gradients": 16 * classes * shape.rows,
        "scores": 16 * classes * rows,
        "batches": _BATCHES_HELD * 4 * batch_rows(shape.features) * shape.features,
        "sample": 4 * min(shape.total_rows, 200_000) * shape.features,
    }

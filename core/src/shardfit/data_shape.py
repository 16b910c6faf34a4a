"""The size of the training data as the plan knows it: what estimates of memory start from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataShape:
    """The size of the training data as the plan knows it.

    Args:
        rows: Rows of the largest shard.
        total_rows: Rows of the whole training data.
        features: Number of feature columns.
        eval_rows: Rows of the largest shard of each evaluation set, added up.
        row_bytes: Bytes of a row of the needed columns as they are decoded; 0 for 4 a column.
        fragment_rows: Rows of the largest fragment, which a batch has no more of unless it is joined; 0 where unknown.
        columns: Number of needed columns; 0 for the features alone.
        shares_driver: Whether the worker is the driver's process, which merges the profile.
        on_gpu: Whether workers have GPUs.
        gapless: Whether it is known that no feature lacks a value.
    """

    rows: int
    total_rows: int
    features: int
    eval_rows: int = 0
    row_bytes: int = 0
    fragment_rows: int = 0
    columns: int = 0
    shares_driver: bool = False
    on_gpu: bool = False
    gapless: bool = True

"""The size of the training data as the plan knows it: what estimates of memory start from."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
        file_rows: Rows of the largest fragment that is decoded from a file; 0 where none is.
        columns: Number of needed columns; 0 for the features alone.
        shares_driver: Whether the worker is the driver's process, which merges the profile.
        on_gpu: Whether workers have GPUs.
        gapless: Whether it is known that no feature lacks a value.
        values: Values of a sparse column in the largest shard; None where features are dense.
        eval_values: The same for the evaluation sets, added up.
        total_values: Values of a sparse column in the whole training data.
        bins: How many all features have together; None before they have been chosen.
    """

    rows: int
    total_rows: int
    features: int
    eval_rows: int = 0
    row_bytes: int = 0
    fragment_rows: int = 0
    file_rows: int = 0
    columns: int = 0
    shares_driver: bool = False
    on_gpu: bool = False
    gapless: bool = True
    values: int | None = None
    eval_values: int = 0
    total_values: int = 0
    bins: int | None = None

    def for_workers(self, workers: int, planned: int) -> DataShape:
        """Return the shape on so many workers, as evenly as can be, none of which is the driver.

        Args:
            workers: 1 or more.
            planned: How many this shape was made for.
        """

        def share(all_of: int) -> int:
            return -(-all_of // workers)

        return replace(
            self,
            rows=share(self.total_rows),
            eval_rows=share(self.eval_rows * planned),
            values=None if self.values is None else share(self.total_values),
            eval_values=share(self.eval_values * planned),
            shares_driver=False,
        )

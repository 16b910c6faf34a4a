"""From the arguments of `to_torch_dataset` to a deal, with what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

from shardfit.errors import InvalidArgumentError
from shardfit_pytorch.data.position import Deal

DEFAULT_BATCH_SIZE = 1024


@dataclass(frozen=True, slots=True)
class DealRules:
    """How a dataset wants its rows dealt.

    Args:
        batch_size: Rows of a step of each rank; None where `global_batch_size` is given, else 1024.
        global_batch_size: Rows of a step of all ranks together, or None.
        drop_last_batch: Whether rows that do not fill the last step are left out.
        equal: Whether every rank gets as many rows as every other.

    Raises:
        InvalidArgumentError: Both sizes are given, or one is no whole number above 0.
    """

    batch_size: int | None = None
    global_batch_size: int | None = None
    drop_last_batch: bool = False
    equal: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "global_batch_size"):
            size = getattr(self, name)
            if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
                raise InvalidArgumentError(
                    f"reading {name}", f"found {size!r}", "It is a whole number of rows, from 1."
                )
        if self.batch_size is not None and self.global_batch_size is not None:
            raise InvalidArgumentError(
                "dealing rows",
                f"batch_size={self.batch_size!r} and global_batch_size={self.global_batch_size!r} are both given",
                "batch_size is of each rank, global_batch_size of all ranks together: name one of them.",
            )

    def deal(self, rows: int, world_size: int) -> Deal:
        """Return how `rows` rows are dealt to `world_size` ranks.

        Raises:
            InvalidArgumentError: A global batch would leave a rank without rows, or cannot be divided equally.
        """
        if self.global_batch_size is None:
            size = self.batch_size or DEFAULT_BATCH_SIZE
            step, ranks = size * world_size, world_size
        else:
            step, size, ranks = self.global_batch_size, self.global_batch_size, 0
            self._check_global(world_size)
        if self.drop_last_batch:
            rows -= rows % step
        elif self.equal:
            rows -= rows % world_size
        return Deal(size, ranks, rows)

    def _check_global(self, world_size: int) -> None:
        size = self.global_batch_size or 0
        if self.equal and size % world_size:
            raise InvalidArgumentError(
                f"dealing global batches of {size} rows equally", f"there are {world_size} ranks", "Use a multiple."
            )
        # A tail of half a batch is a step of its own, at every number of ranks, and each of them needs a row of it.
        if 2 * world_size > size + 1:
            raise InvalidArgumentError(
                f"dealing global batches of {size} rows",
                f"there are {world_size} ranks, and the last batch of an epoch may hold half as many rows",
                f"Use a global_batch_size of {2 * world_size} or more, or at most {max(size // 2, 1)} ranks.",
            )

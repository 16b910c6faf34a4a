"""Who is told what the loop consumes: the run side implements this, the datasets call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from shardfit.coverage import RowDigest
    from shardfit_pytorch.data.position import Position
    from shardfit_pytorch.data.torch_dataset import ShardfitDataset


class ConsumedStep(NamedTuple):
    """One batch that the loop of this rank has taken.

    Args:
        dataset: Name of the dataset.
        position: Where the dataset is now, after this step.
        epoch: Of the batch.
        step: Number of the step within the epoch, from 0.
        rank_rows: Rows of the batch of this rank.
        global_rows: Rows of the step over all ranks.
        digest: Of the global row numbers of the batch; all digests of an epoch over all ranks add up to
            `ShardfitDataset.epoch_digest(epoch)`.
        ends_epoch: Whether it was the last step of the epoch.
    """

    dataset: str
    position: Position
    epoch: int
    step: int
    rank_rows: int
    global_rows: int
    digest: RowDigest
    ends_epoch: bool


class Tracker(Protocol):
    """Watches the datasets of one rank. Called in the process and thread of the loop, never in a DataLoader worker."""

    def attach(self, dataset: ShardfitDataset) -> None:
        """Be told of a new dataset before it is iterated; the place to call its `start_at` when a run continues."""

    def consumed(self, step: ConsumedStep) -> None:
        """Be told of a batch as the loop takes it, in order, before the loop computes on it."""

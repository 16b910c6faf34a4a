"""What each worker ends with: plain values, which the driver reads without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardfit.coverage import RowDigest


@dataclass(frozen=True, slots=True)
class EpochRows:
    """The rows of one epoch that the loop of one rank took from one dataset object.

    Args:
        name: Of the dataset.
        number: Which object of that name: the loop may make several.
        epoch: Which epoch.
        handed: Digest of the rows.
        ended: Whether the loop took the last step of the epoch.
        planned: Digest of the epoch over all ranks.
    """

    name: str
    number: int
    epoch: int
    handed: RowDigest
    ended: bool
    planned: RowDigest


@dataclass(frozen=True)
class LoopReport:
    """What one rank ends with.

    Args:
        steps: Dataset name -> batches that its loop took.
        epochs: The rows of each epoch.
        files: What rank 0 left in its model directory; empty on other ranks.
    """

    steps: Mapping[str, int]
    epochs: Sequence[EpochRows]
    files: Mapping[str, bytes] = field(repr=False)

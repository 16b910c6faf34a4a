"""What a rank's loop has taken of its datasets: positions to save, rows to prove, shares to weigh gradients by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardfit.coverage import RowDigest
from shardfit.engine import WorkerContext
from shardfit_pytorch.data import ConsumedStep, Position, ShardfitDataset
from shardfit_pytorch.group_keeper import GroupKeeper
from shardfit_pytorch.loop_report import EpochRows
from shardfit_pytorch.outbox import Outbox

Epochs = dict[str, dict[int, RowDigest]]

# The driver takes a worker that says nothing for minutes and does not compute for stalled.
_TELL_SECONDS = 1.0


@dataclass
class _Seen:
    dataset: ShardfitDataset
    number: int
    # Whether it is read in the same way as the first of its name.
    main: bool
    steps: int = 0
    epochs: dict[int, RowDigest] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    unproven: int | None = None


class DatasetTracker:
    """Watches the datasets of one rank; see `Tracker`.

    A loop may make a dataset for each epoch, or one for all of them. Of those of a name that are read in the same way
    as the first, the one that was read last has the position that counts.

    Args:
        worker: The engine's context.
        outbox: Tells the driver now and then how far the loop is; what it could not send ends the loop.
        keeper: Looks at the loop's process group with each batch.
    """

    def __init__(self, worker: WorkerContext, outbox: Outbox, keeper: GroupKeeper) -> None:
        self._worker, self._outbox, self._keeper = worker, outbox, keeper
        self._share = (1, worker.world_size)
        self._told_at = worker.clock()
        self._seen: list[_Seen] = []
        self._latest: dict[str, _Seen] = {}
        self._starts: dict[str, Position] = {}
        self._earlier: Epochs | None = {}

    def attach(self, dataset: ShardfitDataset) -> None:
        """Let a new dataset start where the run that is continued left off."""
        alike = [each.dataset for each in self._seen if each.dataset.name == dataset.name]
        seen = _Seen(dataset, len(alike), main=not alike or _kind(alike[0]) == _kind(dataset))
        self._seen.append(seen)
        self._start(seen)

    def consumed(self, step: ConsumedStep) -> None:
        """Count a batch."""
        self._outbox.check()
        self._keeper.look()
        seen = next(each for each in reversed(self._seen) if each.dataset.state() is step.position)
        seen.steps += 1
        seen.epochs[step.epoch] = seen.epochs.get(step.epoch, RowDigest()) + step.digest
        if step.ends_epoch:
            seen.ended.add(step.epoch)
        if seen.main:
            self._latest[step.dataset] = seen
        self._share = (step.rank_rows, step.global_rows)
        if (now := self._worker.clock()) - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            done, total = seen.epochs[step.epoch].rows, step.rank_rows * len(seen.dataset)
            self._outbox.send(lambda: self._worker.progress("ingest", done, max(done, total), step.dataset))

    def step_rows(self) -> tuple[int, int]:
        """Return the rows of this rank in the step that it took last, and those of all ranks together."""
        return self._share

    @property
    def steps(self) -> dict[str, int]:
        """Dataset name -> batches that the loop took."""
        total: dict[str, int] = {}
        for seen in self._seen:
            if seen.main:
                total[seen.dataset.name] = total.get(seen.dataset.name, 0) + seen.steps
        return total

    @property
    def total_steps(self) -> int:
        """Batches that the loop took of all datasets together."""
        return sum(seen.steps for seen in self._seen)

    def positions(self) -> dict[str, Position]:
        """Return where each dataset is."""
        self._look_at_all()
        return {**self._starts, **{name: seen.dataset.state() for name, seen in self._latest.items()}}

    def open_epochs(self) -> Epochs:
        """Return the rows that this rank took of the epochs that its datasets are in the middle of."""
        opened: Epochs = {}
        for name, seen in self._latest.items():
            epoch = seen.dataset.state().epoch
            if epoch in seen.epochs and seen.unproven != epoch:
                opened[name] = {epoch: seen.epochs[epoch]}
        return opened

    def restore(self, positions: Mapping[str, Position], earlier: Epochs | None) -> None:
        """Go on where a checkpoint was.

        Args:
            positions: Dataset name -> where it was.
            earlier: Rows of the epochs that were under way; those of all ranks, given to one of them. None where they
                are not known, so that nothing can be proved of those epochs.
        """
        self._earlier, self._starts = earlier, dict(positions)
        for seen in self._seen:
            self._start(seen)

    def report(self) -> list[EpochRows]:
        """Return the rows of every epoch, but of those of which nothing can be proved."""
        self._look_at_all()
        return [
            EpochRows(
                seen.dataset.name, seen.number, epoch, handed, epoch in seen.ended, seen.dataset.epoch_digest(epoch)
            )
            for seen in self._seen
            for epoch, handed in seen.epochs.items()
            if epoch != seen.unproven
        ]

    def _look_at_all(self) -> None:
        # Asking a dataset where it is makes it warn if batches went past it.
        for seen in self._seen:
            seen.dataset.state()

    def _start(self, seen: _Seen) -> None:
        name = seen.dataset.name
        if (start := self._starts.pop(name, None)) is None:
            return
        seen.dataset.start_at(start)
        self._latest[name] = seen
        if start.deals and self._earlier is None:
            seen.unproven = start.epoch
        elif self._earlier and start.epoch in self._earlier.get(name, {}):
            seen.epochs[start.epoch] = self._earlier[name][start.epoch]


def _kind(dataset: ShardfitDataset) -> tuple[str, int]:
    """Return what tells datasets of a name that are read in another way, for another purpose, from each other."""
    return dataset.state().order, len(dataset)


def digest_to_json(digest: RowDigest) -> list[Any]:
    """Return a digest as plain values."""
    return [digest.rows, *map(str, digest.powers)]


def digest_from_json(value: list[Any]) -> RowDigest:
    """Return the digest that `digest_to_json` wrote."""
    rows, first, second, third = value
    return RowDigest(int(rows), (int(first), int(second), int(third)))

"""What happens during a run, as frozen values: workers send them, observers receive them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from shardfit.file_parts import SentInParts

Phase = Literal["profile", "ingest", "fit", "predict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of every event.

    Args:
        run_id: The run that it belongs to; filled in on the driver, empty on its way from a worker.
        attempt: 1 for the first try.
    """

    run_id: str = ""
    attempt: int = 1

    @property
    def name(self) -> str:
        """The event's class name, for logs and JSON."""
        return type(self).__name__

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain values that JSON can hold, with its name under `event`."""
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run has an id and a job.

    Args:
        trainer: Name of the trainer.
        job: `Job.describe()`: what was asked for, secrets left out.
    """

    trainer: str
    job: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade(Event):
    """The layout and the shard plans of an attempt are decided.

    Args:
        workers: Number of workers.
        rows: Dataset name -> rows.
        digests: Dataset name -> digest of its shard plan.
        reasons: Why this layout.
        warnings: What the user should know before the start.
        plan: `RunPlan.to_dict()`: everything that was decided.
    """

    workers: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    plan: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A worker has done a part of a phase.

    Args:
        worker: Rank.
        phase: What it is doing.
        done: Rows (or rounds, in the phase `fit`) done so far.
        total: Rows (or rounds) in all; an upper bound where training may stop early.
        dataset: Name of the dataset, or empty.
    """

    worker: int
    phase: Phase
    done: int
    total: int
    dataset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileMade(Event):
    """The workers' profiles are merged.

    Args:
        rows: Rows profiled.
        sample_rows: Rows of the sample.
        warnings: What the values themselves gave cause for.
    """

    rows: int
    sample_rows: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMeasured(Event):
    """A worker has ended a phase.

    Args:
        worker: Rank.
        phase: `profile`, `ingest` or `fit`; `fit` alone for trainers that do all at once.
        peak_bytes: Most memory that its process had meanwhile.
    """

    worker: int
    phase: Phase
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BinsKept(Event):
    """A worker keeps what it has binned on its local disk, for an attempt that may follow.

    Args:
        worker: Rank.
        dataset: Name of the dataset.
        bytes: How many it wrote.
        seconds: How long that took.
    """

    worker: int
    dataset: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BinsTaken(Event):
    """A worker has taken up what an earlier attempt had kept on its disk, instead of binning its shard again.

    Args:
        worker: Rank.
        dataset: Name of the dataset.
        rows: How many it holds.
    """

    worker: int
    dataset: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BinsRejected(Event):
    """Bins could not be kept, or those that were kept could not be used; the shard is binned whenever it is needed.

    Args:
        worker: Rank.
        dataset: Name of the dataset, or empty where all are meant.
        reason: Why: no room, a damaged file.
    """

    worker: int
    dataset: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsReported(Event):
    """A round of training ended; sent by worker 0 only, the values hold for all.

    Args:
        round: 0 for the first.
        metrics: `"<dataset>-<metric>"` -> value over the whole dataset.
    """

    round: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOffered(Event):
    """A worker offers a checkpoint; the driver stores it once it is whole, if the attempt is still the current one.

    Args:
        step: Rounds (or steps) that it holds.
        files: Name -> content, or what says that its parts were sent before.
        worker: Rank of the worker that offers them.
        pieces: How many workers' files make the checkpoint whole.
    """

    step: int
    files: Mapping[str, bytes | SentInParts] = field(repr=False)
    worker: int = 0
    pieces: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the event without the content of its files."""
        sizes = {name: len(content) for name, content in self.files.items()}
        return {
            "event": self.name,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "step": self.step,
            "files": sizes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointStored(Event):
    """A checkpoint is in the store.

    Args:
        step: Rounds (or steps) that it holds.
        artifact: Its identifier, which `resume_from` takes.
    """

    step: int
    artifact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost(Event):
    """A worker died, or was given up.

    Args:
        worker: Rank, or -1 where unknown.
        node: Name of its node, or empty where unknown.
        reason: Why, as far as known, for people.
        pid: Its process on that node, or 0 where unknown.
        phase: What it was doing, or empty where unknown.
        cause: `killed`, `crashed`, `exited`, `out of memory`, `node gone`, `frozen`, `silent`, `stalled`, or empty
            where unknown.
        exit_code: Code that its process ended with, where known.
        signal: Name of the signal that ended it, where known.
        log: Last lines of its log.
    """

    worker: int
    node: str
    reason: str
    pid: int = 0
    phase: str = ""
    cause: str = ""
    exit_code: int | None = None
    signal: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForWorkers(Event):
    """After a loss the scaling policy waits for a replacement; told now and then while it does.

    Args:
        workers: How many the lost attempt had.
        seconds_left: Until the run is given up.
    """

    workers: int
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed(Event):
    """The store refused a checkpoint; training goes on, and the next one is offered to it again.

    Args:
        step: Rounds (or steps) that it holds.
        reason: What the store said.
    """

    step: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactStored(Event):
    """The finished model is published.

    Args:
        artifact: Its identifier in the store.
        address: Where people find it: a path or URL, secrets left out.
    """

    artifact: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run is over.

    Args:
        status: How it ended.
        error: The message of the error, or empty.
        phases: Phase -> seconds spent in it, on the driver's clock.
    """

    status: Literal["finished", "failed", "cancelled"]
    error: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)


EventSink = Callable[[Event], None]

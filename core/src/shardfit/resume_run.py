"""Going on with a run that failed, was cancelled, or lost its driver: from its last checkpoint, under its own id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from shardfit.artifacts import ArtifactStore
from shardfit.cancellation import Cancellation
from shardfit.checkpoints import newest_checkpoint
from shardfit.errors import ArtifactNotFoundError, InvalidArgumentError
from shardfit.events import EventSink
from shardfit.job import Job
from shardfit.job.portable import job_from_portable
from shardfit.presence import Presence, find_presence
from shardfit.registry import Registry, default_registry
from shardfit.run import Run, TrainResult
from shardfit.run_record import RunRecord, record_of
from shardfit.stores.local import user_stage_root
from shardfit.train import run_to_end

# What must be the same for a checkpoint to be gone on from; how many workers, and where, may be another.
_SAME = ("trainer", "params", "columns", "seed")


def resume_run(
    run_id: str,
    stage: str | None = None,
    *,
    job: Job | None = None,
    take_over: bool = False,
    registry: Registry | None = None,
    observers: Sequence[EventSink] = (),
    cancellation: Cancellation | None = None,
) -> TrainResult:
    """Go on with a run from its last checkpoint, or from the start if it has none; on any machine that has the stage.

    The run keeps its id and makes its next attempt, which shuts out a driver of an older one for good: should that
    come back, it can neither publish nor keep a checkpoint.

    Args:
        run_id: Of the run.
        stage: Location of its store; the user's own on this machine if None, or that of `job`.
        job: What to train; needed where the run could not write it down, for data in memory, functions and secrets.
        take_over: Go on even if the run's driver seems to live.
        registry: As for `train`.
        observers: As for `train`.
        cancellation: As for `train`.

    Raises:
        ArtifactNotFoundError: The stage knows no such run.
        InvalidArgumentError: The run is finished, or its driver lives, or `job` is needed, or is another.
        ChangedDataError: The data is not what it was.
    """
    registry = registry or default_registry()
    location = stage or (job.stage if job else None)
    store = registry.open_store(location or os.fspath(user_stage_root(os.environ)))
    known, newest = _known(store, run_id, take_over)
    run = Run(
        run_id,
        _job(f"resuming run {run_id!r}", known, job, location),
        registry,
        store,
        observers,
        cancellation=cancellation,
        attempt=newest + 1,
        resumed_from=newest_checkpoint(store, run_id),
        known=known,
    )
    return run_to_end(run, registry)


def _known(store: ArtifactStore, run_id: str, take_over: bool) -> tuple[Presence | None, int]:
    """Return what the run has said of itself, if anything, and the newest attempt."""
    asked = f"resuming run {run_id!r}"
    record, presence = record_of(store, run_id), find_presence(store, run_id)
    if record is None and presence is None:
        raise ArtifactNotFoundError(asked, f"{store.address('run')} knows no such run", "`shardfit runs` lists them.")
    _check_not_going_on(asked, record, presence, take_over)
    known = presence or (Presence(**record.resume) if record is not None and record.resume else None)
    return known, max(record.attempts if record else 0, presence.attempt if presence else 0)


def _check_not_going_on(asked: str, record: RunRecord | None, presence: Presence | None, take_over: bool) -> None:
    newer = presence is not None and (record is None or presence.attempt > record.attempts)
    if record is not None and not newer and record.status == "finished":
        raise InvalidArgumentError(asked, f"it is finished; its model is {record.model_address}", "Load that.")
    if presence is not None and newer and not take_over and presence.alive(datetime.now(UTC)):
        raise InvalidArgumentError(
            asked,
            f"its driver is alive: process {presence.pid} on {presence.host}, last sign of life {presence.at}",
            "Wait for it, end it, or pass take_over=True (--take-over), which shuts it out.",
        )


def _job(asked: str, known: Presence | None, job: Job | None, stage: str | None) -> Job:
    if job is None:
        if known is None or not known.job:
            why = known.why_no_job if known else "it ended before it had a plan"
            raise InvalidArgumentError(asked, f"its job is not known: {why}", "Pass the job (--job JOB.toml).")
        return job_from_portable(known.job, stage)
    described = job.describe()
    if known is not None:
        for key in _SAME:
            if known.described.get(key) != described[key]:
                found = f"its {key!r} is {known.described.get(key)!r}, that of the job passed is {described[key]!r}"
                raise InvalidArgumentError(asked, found, "Pass the job that the run was started with.")
    return job

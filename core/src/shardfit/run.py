"""One call of `train` as it goes on: its id, attempts, events, checkpoints, and what it leaves behind."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from shardfit.artifacts import ArtifactStore
from shardfit.cancellation import Cancellation
from shardfit.checkpoints import delete_older, load_checkpoint
from shardfit.coverage import DatasetCoverage
from shardfit.engines.losses import loss_event
from shardfit.errors import ArtifactError, RunCancelledError, StaleAttemptError, WorkerLostError
from shardfit.events import (
    ArtifactStored,
    BinsKept,
    BinsRejected,
    BinsTaken,
    CheckpointFailed,
    CheckpointOffered,
    CheckpointStored,
    Event,
    EventSink,
    MemoryMeasured,
    MetricsReported,
    PlanMade,
    ProfileMade,
    RunEnded,
    RunStarted,
    WorkerLost,
)
from shardfit.file_parts import FilePart, PartSpool
from shardfit.job import Job
from shardfit.kept_bins import BinKeeping, forget_bins
from shardfit.plain_values import plain_value
from shardfit.presence import Presence, SignOfLife
from shardfit.profile import Profile
from shardfit.profile.shard import value_warnings
from shardfit.registry import Registry
from shardfit.run_plan import RunPlan
from shardfit.run_presence import presence_of
from shardfit.run_record import RunRecord, metrics_at, new_run_id, save_record
from shardfit.stores.local import user_stage_root
from shardfit.trainer import Checkpoint, Trainer
from shardfit.versions import installed_versions

_ENTROPY_BYTES = 8


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a finished run gives.

    Args:
        run_id: Identifier of the run; its record and model are found by it.
        model: The trainer's model.
        trainer: The trainer that made it; its `predict` and `save` take the model.
        metrics: `"<dataset>-<metric>"` -> value after each round.
        best_round: Last round that the model predicts with, or None for all.
        coverage: Dataset name -> the rows that were planned and those that were used.
        plan: What was decided before the start; of the last attempt.
        attempts: Number of attempts, 1 if no worker was lost.
        phases: Phase -> seconds.
        peak_memory: Phase of the workers -> most bytes that any of them had; `plan.memory.phases` is what was planned.
        warnings: What the user should know.
        model_address: Where the model is published.
        store: The store that it is published in.
    """

    run_id: str
    model: Any = field(repr=False)
    trainer: Trainer = field(repr=False)
    metrics: Mapping[str, tuple[float, ...]]
    best_round: int | None
    coverage: Mapping[str, DatasetCoverage]
    plan: RunPlan = field(repr=False)
    attempts: int
    phases: Mapping[str, float]
    peak_memory: Mapping[str, int]
    warnings: tuple[str, ...]
    model_address: str
    store: ArtifactStore = field(repr=False)

    def get_model_dir(self) -> str:
        """Return where the model is published: the folder or URL that holds its files and their manifest."""
        return self.model_address


class Run:
    """One call of `train`. A context manager: leaving it ends the run and writes its record, however it is left.

    Args:
        run_id: Unique identifier.
        job: What was asked for.
        registry: Its observers hear of everything.
        store: Keeps checkpoints, the model and the record.
        observers: Called with every event, beside the plugins' own.
        clock: Seconds since some moment.
        cancellation: Ends it from outside.
        attempt: The first that it makes: 1, or more for a run that is resumed.
        resumed_from: The checkpoint to go on from instead of that of the job.
        known: What the run has said of itself before it was resumed.
    """

    def __init__(
        self,
        run_id: str,
        job: Job,
        registry: Registry,
        store: ArtifactStore,
        observers: Sequence[EventSink],
        clock: Any = time.monotonic,
        cancellation: Cancellation | None = None,
        attempt: int = 1,
        resumed_from: Checkpoint | None = None,
        known: Presence | None = None,
    ) -> None:
        self.run_id = run_id
        self.attempt = self._first_attempt = attempt
        self.cancellation = cancellation or Cancellation()
        self.checkpoint = resumed_from
        if resumed_from is None and job.resume_from:
            self.checkpoint = load_checkpoint(store, job.resume_from)
        # One that ends before it has a plan must leave what the next can go by.
        self._presence = replace(known or Presence(run_id=run_id, attempt=attempt), attempt=attempt)
        self._life = SignOfLife(store)
        self.phases: dict[str, float] = {}
        self.peak_memory: dict[str, int] = {}
        self.bins: dict[str, int] = {}
        self.warnings: list[str] = []
        self.job, self._registry, self._store = job, registry, store
        self._observers = tuple(observers)
        self._clock = clock
        earlier = self.checkpoint.metrics if self.checkpoint else {}
        self._history: dict[str, dict[int, float]] = {name: dict(values) for name, values in earlier.items()}
        self._stored = ""
        self._spool = PartSpool()
        self._drawn = os.urandom(_ENTROPY_BYTES).hex()
        self._told_lost = 0
        self._pieces: dict[int, dict[int, CheckpointOffered]] = {}
        self._plan: RunPlan | None = None
        self._result: TrainResult | None = None

    @classmethod
    def start(
        cls,
        job: Job,
        registry: Registry,
        observers: Sequence[EventSink],
        cancellation: Cancellation | None = None,
    ) -> Run:
        """Return a new run with an identifier and an open store.

        Args:
            job: What is asked for; names the stage.
            registry: Opens the stage, and knows the plugins that observe.
            observers: Called with every event, beside those.
            cancellation: Ends it from outside.

        Raises:
            ArtifactError: The store cannot be opened, or `job.resume_from` is not in it.
        """
        store = registry.open_store(job.stage or str(user_stage_root(os.environ)))
        run_id = new_run_id(datetime.now(UTC), os.urandom(_ENTROPY_BYTES))
        return cls(run_id, job, registry, store, observers, cancellation=cancellation)

    def __enter__(self) -> Self:
        self.emit(RunStarted(trainer=self.job.trainer, job=self.job.describe()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: Literal["finished", "failed", "cancelled"] = "finished"
        if kind is not None:
            status = "cancelled" if issubclass(kind, KeyboardInterrupt | RunCancelledError) else "failed"
        message = "" if value is None else f"{type(value).__name__}: {value}"
        recorded = False
        try:
            self._spool.close()
            # Where workers did not come to it: one that is this process, and failed before it trained.
            for dataset in self._plan.datasets.values() if self._plan else ():
                dataset.source.close()
            self.emit(RunEnded(status=status, error=message, phases=dict(self.phases)))
            # A record that fails while the run fails must not hide why the run failed.
            with contextlib.suppress(Exception) if kind is not None else contextlib.nullcontext():
                if not isinstance(value, StaleAttemptError):
                    forget_bins(self.run_id)
                    save_record(self._store, self._record(status, message))
                recorded = True
        finally:
            self._life.end(keep=not recorded)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds of a phase."""
        begun = self._clock()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + self._clock() - begun

    def bin_keeping(self, plan: RunPlan) -> BinKeeping | None:
        """Return for whom the workers of this attempt keep what they bin; None to keep nothing."""
        if self.job.keep_bins == "never":
            return None
        return BinKeeping.of(self.run_id, plan.datasets, self._drawn, always=self.job.keep_bins == "always")

    def emit(self, event: Event) -> None:
        """Pass an event to every observer."""
        self._registry.notify(replace(event, run_id=self.run_id, attempt=self.attempt), self._observers)

    def on_event(self, event: Event) -> None:
        """Take an event from a worker. Called on the driver's thread; those of an older attempt are nobody's any more.

        Raises:
            RunCancelledError: The run was cancelled.
            StaleAttemptError: Another driver has taken the run over.
        """
        self.cancellation.check()
        self._life.check()
        if event.attempt != self.attempt and isinstance(event, FilePart | CheckpointOffered | MetricsReported):
            return
        if isinstance(event, FilePart):
            self._spool.take(event)
            return
        if isinstance(event, CheckpointOffered):
            self._store_checkpoint(event)
            return
        if isinstance(event, WorkerLost):
            self._told_lost = self.attempt
        if isinstance(event, BinsKept | BinsTaken | BinsRejected):
            self.bins[event.name] = self.bins.get(event.name, 0) + 1
        if isinstance(event, BinsRejected):
            self._warn([f"Worker {event.worker}, {event.reason}"])
        if isinstance(event, MemoryMeasured):
            self.peak_memory[event.phase] = max(event.peak_bytes, self.peak_memory.get(event.phase, 0))
        if isinstance(event, MetricsReported):
            for name, value in event.metrics.items():
                self._history.setdefault(name, {})[event.round] = value
        self.emit(event)

    def planned(self, plan: RunPlan) -> None:
        """Take the plan of the attempt that is about to start; older attempts cannot publish from now on.

        Raises:
            InvalidArgumentError: The checkpoint that was asked for does not fit the plan.
        """
        self._plan = plan
        if self.attempt == self._first_attempt:
            self._presence = presence_of(plan, self._presence)
            if self.checkpoint is not None:
                plan.trainer.check_resume(plan.config, plan.roles, self.checkpoint)
        self._presence = replace(self._presence, attempt=self.attempt)
        self._life.show(self._presence)
        self._warn(plan.warnings)
        self.emit(
            PlanMade(
                workers=plan.layout.workers,
                rows={name: dataset.shard_plan.rows for name, dataset in plan.datasets.items()},
                digests={name: dataset.shard_plan.digest for name, dataset in plan.datasets.items()},
                reasons=plan.layout.reasons,
                warnings=plan.warnings,
                plan=plan.to_dict(),
            )
        )

    def profiled(self, profile: Profile, plan: RunPlan) -> None:
        """Take the merged profile, and what its values give cause to warn about.

        Args:
            profile: Of the whole training data.
            plan: Of this attempt, completed with what the profile says.
        """
        self._plan = plan
        self._warn(plan.warnings)
        found = value_warnings(profile, plan.roles)
        self._warn(found)
        self.emit(ProfileMade(rows=profile.rows, sample_rows=len(profile.sample_ids), warnings=tuple(found)))

    def lost(self, error: WorkerLostError) -> None:
        """Take the loss of a worker: the next attempt goes on from the last checkpoint.

        Raises:
            WorkerLostError: There were as many attempts as the job allows.
        """
        if self._told_lost != self.attempt:
            self.emit(loss_event(error))
        if self.attempt - self._first_attempt + 1 >= self.job.max_attempts:
            raise error
        self.cancellation.check()
        self.attempt += 1
        self._pieces.clear()
        if self._stored:
            self.checkpoint = load_checkpoint(self._store, self._stored)

    def publish(self, plan: RunPlan, model: Any, coverage: Mapping[str, DatasetCoverage]) -> TrainResult:
        """Store the model as a whole and return the result.

        Args:
            plan: Of the attempt that made it.
            model: What the trainer collected.
            coverage: Dataset name -> the rows that were planned and those that were used.

        Raises:
            ArtifactError: The store refuses it; nothing is visible then.
        """
        artifact = f"model/{self.run_id}"
        metrics = {name: tuple(values[i] for i in sorted(values)) for name, values in self._history.items()}
        best = plan.trainer.best_round(model)
        metadata = {
            **plan.trainer.metadata(model),
            "run_id": self.run_id,
            "trainer": self.job.trainer,
            "versions": installed_versions(),
            "shard_plan": plan.datasets["train"].shard_plan.digest,
            "metrics": {name: value for name, value in metrics_at(best, metrics).items() if math.isfinite(value)},
            "history": plain_value(self._history),
            "best_round": best,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._store.put(artifact, dict(plan.trainer.save(model)), metadata, self.attempt)
        address = self._store.address(artifact)
        self.emit(ArtifactStored(artifact=artifact, address=address))
        self._result = TrainResult(
            run_id=self.run_id,
            model=model,
            trainer=plan.trainer,
            metrics=metrics,
            best_round=best,
            coverage=dict(coverage),
            plan=self._plan or plan,
            attempts=self.attempt,
            phases=self.phases,
            peak_memory=dict(self.peak_memory),
            warnings=tuple(self.warnings),
            model_address=address,
            store=self._store,
        )
        return self._result

    def _store_checkpoint(self, event: CheckpointOffered) -> None:
        pieces = self._pieces.setdefault(event.step, {})
        pieces[event.worker] = event
        if len(pieces) < event.pieces:
            return
        # Workers offer in the order of the steps: what is older than a whole one will never be whole.
        self._pieces = {step: kept for step, kept in self._pieces.items() if step > event.step}
        event = replace(event, files={name: file for piece in pieces.values() for name, file in piece.files.items()})
        artifact = f"run/{self.run_id}/checkpoint-{self.attempt}-{event.step}"
        metadata = {"step": event.step, "history": plain_value(self._history)}
        try:
            self._store.put(artifact, self._spool.files_of(event), metadata, self.attempt)
        except StaleAttemptError:
            raise
        except ArtifactError as error:
            # A store that is away may be back for the next one, and what the workers have is lost if they stop.
            self._warn([f"No checkpoint after {event.step} rounds: {error}"])
            self.emit(CheckpointFailed(step=event.step, reason=str(error)))
            return
        finally:
            self._spool.forget(event.step)
        self._stored = artifact
        self.emit(CheckpointStored(step=event.step, artifact=artifact))
        # What stays is in nobody's way, and goes after the next one.
        with contextlib.suppress(ArtifactError):
            delete_older(self._store, artifact)

    def _warn(self, warnings: Sequence[str]) -> None:
        self.warnings.extend(warning for warning in warnings if warning not in self.warnings)

    def _record(self, status: Literal["finished", "failed", "cancelled"], error: str) -> RunRecord:
        plan, result = self._plan, self._result
        return RunRecord(
            run_id=self.run_id,
            attempts=self.attempt,
            status=status,
            error=error,
            trainer=self.job.trainer,
            job=self.job.describe(),
            versions=installed_versions(),
            plan=plan.to_dict() if plan else {},
            warnings=tuple(self.warnings),
            metrics={name: [values[i] for i in sorted(values)] for name, values in self._history.items()},
            best_round=result.best_round if result else None,
            coverage={name: str(part.handed) for name, part in result.coverage.items()} if result else {},
            phases=dict(self.phases),
            peak_memory=dict(self.peak_memory),
            bins=dict(self.bins),
            model_address=result.model_address if result else "",
            resume=asdict(self._presence) if self._presence.trainer and not result else {},
        )

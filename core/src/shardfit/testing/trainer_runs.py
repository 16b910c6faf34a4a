"""One run of a trainer in a stage of its own, and what is left of it; for the trainer kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardfit.artifacts import ArtifactStore
from shardfit.coverage import DatasetCoverage
from shardfit.events import Event
from shardfit.hookspecs import TrainerProvider, hookimpl
from shardfit.job import Job
from shardfit.registry import Registry
from shardfit.run import TrainResult
from shardfit.train import train
from shardfit.trainer import Trainer

NAME = "under-test"


@dataclass(frozen=True)
class FinishedRun:
    """What is left of a run that ended well.

    Args:
        result: What `train` returned.
        files: The published model, read back from the store.
        events: What observers saw.
    """

    result: TrainResult = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)

    @property
    def coverage(self) -> Mapping[str, DatasetCoverage]:
        """Dataset name -> the rows that were planned and those that were used."""
        return self.result.coverage

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one class."""
        return [event for event in self.events if type(event) is kind]


class _Provider:
    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @hookimpl
    def shardfit_trainers(self) -> Mapping[str, TrainerProvider]:
        return {NAME: lambda: self._trainer}


def run_trainer(
    trainer: Trainer, stage: Path, workers: int = 1, observers: Sequence[Any] = (), **fields: Any
) -> FinishedRun:
    """Train with one trainer object, in this process or on Ray.

    Args:
        trainer: Used as it is.
        stage: Folder for what is published.
        workers: 1 for this process; more for as many Ray workers of one CPU.
        observers: Called with every event.
        **fields: The rest of the job.

    Raises:
        Exception: Whatever `train` raises.
    """
    registry = Registry()
    registry.register(_Provider(trainer), NAME)
    job = Job(
        trainer=NAME,
        workers=workers,
        cpus_per_worker=1,
        use_gpu=False,
        engine="inline" if workers == 1 else "ray",
        stage=str(stage),
        max_attempts=1,
        **{"checkpoint_every_seconds": None, **fields},
    )
    events: list[Event] = []
    result = train(job, registry=registry, observers=[events.append, *observers])
    return FinishedRun(result, published(result.store, result.run_id), tuple(events))


def published(store: ArtifactStore, run_id: str) -> Mapping[str, bytes]:
    """Return the files of a run's model.

    Args:
        store: The stage.
        run_id: Of the run.
    """
    artifact = f"model/{run_id}"
    return {entry.name: store.read(artifact, entry.name) for entry in store.manifest(artifact).files}


__all__ = ["FinishedRun", "published", "run_trainer"]

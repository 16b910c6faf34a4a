"""Runs in MLflow: parameters, metrics, the plan, and the model in its own flavour; needs the extra `mlflow`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from shardfit.artifacts import Manifest
from shardfit.errors import ArtifactError
from shardfit.events import ArtifactStored, Event, MetricsReported, PlanMade, RunEnded, RunStarted
from shardfit.file_parts import contents
from shardfit.redaction import redact
from shardfit.registry import Registry, default_registry
from shardfit.trainer import Trainer
from shardfit_stages.mlflow_signature import signature_of

MODEL = "model"
"""Name of the folder that holds the model, in MLflow's form, among the artifacts of a run."""

_FLAVOURS = {"xgboost": "mlflow.xgboost", "lightgbm": "mlflow.lightgbm"}
_STATES = {"finished": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_MOST_WAITING = 500
_MOST_PARAMS = 100
_MOST_CHARACTERS = 5000


@dataclass
class _Run:
    """What is known of a run while it goes on."""

    mlflow_id: str
    trainer: str
    started_ms: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    waiting: list[Metric] = field(default_factory=list)


class MLflowObserver:
    """Logs each run to MLflow; pass it among the `observers` of an estimator or of `train`.

    Not thread-safe; events come on one thread. What MLflow raises is logged and never breaks a run.

    Args:
        tracking_uri: Of the tracking store, for example `sqlite:///mlflow.db` or `http://host:5000`.
        experiment: Name of the experiment; made if it is not there.
        registered_model: Name in the model registry under which each finished model becomes a version, or None.
        stage: Where models are published; None where their addresses, without secrets, are enough to open it.
        registry: Knows the trainers and opens the stage; what is installed if None.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str = "shardfit",
        registered_model: str | None = None,
        stage: str | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._client = MlflowClient(tracking_uri)
        self._experiment = experiment
        self._registered_model = registered_model
        self._stage = stage
        self._registry = registry
        self._runs: dict[str, _Run] = {}

    def run_id(self, run_id: str) -> str:
        """Return MLflow's identifier of a run that this observer has seen.

        Args:
            run_id: shardfit's.

        Raises:
            KeyError: It has seen no such run.
        """
        return self._runs[run_id].mlflow_id

    def __call__(self, event: Event) -> None:
        """Log an event."""
        if isinstance(event, RunStarted):
            self._start(event)
        run = self._runs.get(event.run_id)
        if run is None:
            return
        if isinstance(event, PlanMade):
            run.plan = event.plan
            self._client.log_dict(run.mlflow_id, dict(event.plan), "plan.json")
            self._tag(run, {f"shardfit.shard_plan.{name}": digest for name, digest in event.digests.items()})
        elif isinstance(event, MetricsReported):
            self._report(run, event)
        elif isinstance(event, ArtifactStored):
            self._log_model(run, event)
        elif isinstance(event, RunEnded):
            self._end(run, event)

    def _start(self, event: RunStarted) -> None:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        tags = {"shardfit.run_id": event.run_id, "shardfit.trainer": event.trainer}
        made = self._client.create_run(experiment, tags=tags, run_name=event.run_id)
        self._runs[event.run_id] = _Run(made.info.run_id, event.trainer, made.info.start_time)
        params = [Param(_key(name), str(value)[:_MOST_CHARACTERS]) for name, value in _flat(event.job)]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(made.info.run_id, params=params[first : first + _MOST_PARAMS])

    def _report(self, run: _Run, event: MetricsReported) -> None:
        run.waiting += [
            Metric(_key(name), float(value), run.started_ms, event.round) for name, value in event.metrics.items()
        ]
        # A round can take a millisecond, and a request does not.
        if len(run.waiting) >= _MOST_WAITING:
            self._flush(run)

    def _flush(self, run: _Run) -> None:
        waiting, run.waiting = run.waiting, []
        if waiting:
            self._client.log_batch(run.mlflow_id, metrics=waiting)

    def _log_model(self, run: _Run, event: ArtifactStored) -> None:
        self._tag(run, {"shardfit.address": event.address})
        registry = self._registry or default_registry()
        store = registry.open_store(self._stage or event.address.removesuffix(f"/{event.artifact}"))
        try:
            manifest = store.manifest(event.artifact)
        except ArtifactError as error:
            raise ArtifactError(error.asked, error.found, "Pass stage= to MLflowObserver: the run's own.") from error
        trainer = registry.trainer(run.trainer)
        model = trainer.load({stored.name: store.read(event.artifact, stored.name) for stored in manifest.files})
        self._client.log_dict(run.mlflow_id, _described(manifest), "manifest.json")
        with tempfile.TemporaryDirectory(prefix="shardfit-mlflow-") as folder:
            path = Path(folder) / MODEL
            _save(run, trainer, model, path)
            self._client.log_artifacts(run.mlflow_id, str(path), MODEL)
        if self._registered_model is not None:
            self._register(run, self._registered_model)

    def _register(self, run: _Run, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(run.mlflow_id).info.artifact_uri}/{MODEL}"
        self._client.create_model_version(name, source, run.mlflow_id)

    def _end(self, run: _Run, event: RunEnded) -> None:
        self._flush(run)
        self._tag(run, {"shardfit.error": redact(event.error)} if event.error else {})
        seconds = [Metric(f"seconds/{_key(name)}", value, run.started_ms, 0) for name, value in event.phases.items()]
        self._client.log_batch(run.mlflow_id, metrics=seconds)
        self._client.set_terminated(run.mlflow_id, _STATES[event.status])

    def _tag(self, run: _Run, tags: Mapping[str, str]) -> None:
        self._client.log_batch(
            run.mlflow_id, tags=[RunTag(_key(key), value[:_MOST_CHARACTERS]) for key, value in tags.items()]
        )


def _save(run: _Run, trainer: Trainer, model: Any, path: Path) -> None:
    """Save a model in its library's flavour; of a trainer without one, the files that it saves itself."""
    flavour = _FLAVOURS.get(run.trainer)
    if flavour is None:
        for name, content in contents(trainer.save(model)).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return
    # Without requirements MLflow would import the library in another process to find out.
    import_module(flavour).save_model(
        model.booster(), str(path), signature=signature_of(trainer, model, run.plan), pip_requirements=[run.trainer]
    )


def _described(manifest: Manifest) -> dict[str, Any]:
    files = [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in manifest.files]
    return {"artifact": manifest.artifact, "files": files, "metadata": dict(manifest.metadata)}


def _flat(job: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in job.items():
        if isinstance(value, Mapping):
            found += [(f"{name}.{inner}", content) for inner, content in value.items()]
        elif value is not None:
            found.append((name, value))
    return found


def _key(name: str) -> str:
    # MLflow's names have letters, digits, `_`, `-`, `.`, `/` and spaces.
    return re.sub(r"[^\w\-./ ]", "_", name)

"""A trainer of forty lines, with no matrix and no library, is a full citizen: that is how small the contract is."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.cancellation import Cancellation
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError, RunCancelledError, UnknownParameterError, WorkerError
from shardfit.exact_sum import ExactSum
from shardfit.hookspecs import hookimpl
from shardfit.job import Job
from shardfit.prediction import WorkerRequest, predict
from shardfit.registry import Registry
from shardfit.run import TrainResult
from shardfit.source import Claim
from shardfit.sources.arrow import ArrowSource
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import awkward_table, write_unevenly
from shardfit.testing.worker_threads import train_on_threads
from shardfit.train import train
from shardfit.trainer import Trainer
from tests.shardfit.worker_processes import ProcessEngine

ROWS = 3_000


class LinearTrainer(Trainer):
    """Least squares by normal equations; sums are exact, so the number of workers moves no bit."""

    def configure(self, params: Mapping[str, Any]) -> float:
        if unknown := params.keys() - {"ridge"}:
            raise UnknownParameterError(f"reading {unknown!r}", "there is only 'ridge'", "Use it or nothing.")
        return float(params.get("ridge", 0.0))

    def run_worker(self, context: Any, shards: Any, config: float, settings: Any, meeting: None) -> Any:
        names, label = settings.roles.features, settings.roles.label[0]
        sums = [ExactSum() for _ in range((len(names) + 2) ** 2)]
        for batch in shards["train"].batches():
            columns = [np.ones(len(batch.row_ids)), *map(batch.records.column, (*names, label))]
            table = np.nan_to_num(np.column_stack([np.asarray(c, dtype=np.float64) for c in columns]))
            pairs = [(a, b) for a in table.T for b in table.T]
            sums = [total + ExactSum.of(a * b) for total, (a, b) in zip(sums, pairs, strict=True)]
        return names, config, sums

    def collect(self, values: Any) -> Any:
        names, ridge, _ = values[0]
        totals = [sum(parts, ExactSum()).total for parts in zip(*[sums for _, _, sums in values], strict=True)]
        moments = np.reshape(totals, (len(names) + 2, -1))
        left = moments[:-1, :-1] + ridge * np.eye(len(names) + 1)
        return {"names": list(names), "weights": np.linalg.solve(left, moments[:-1, -1]).tolist()}

    def save(self, model: Any) -> Mapping[str, bytes]:
        return {"model.json": json.dumps(model).encode()}

    def load(self, files: Mapping[str, bytes]) -> Any:
        return json.loads(files["model.json"])

    def predict(self, model: Any, batch: pa.RecordBatch) -> pa.Array:
        columns = [np.nan_to_num(np.asarray(batch.column(name), dtype=np.float64)) for name in model["names"]]
        return pa.array(np.column_stack([np.ones(batch.num_rows), *columns]) @ model["weights"])

    def input_columns(self, model: Any) -> tuple[str, ...]:
        return tuple(model["names"])


FEATURES = ("drift", "coarse", "normal")
ROLES = ColumnRoles(FEATURES, ("delay",))
TABLE = awkward_table(ROWS)


class RecordingTrainer(LinearTrainer):
    """Says which call was made, and where: on the driver, or on a worker, whose calls come back with its values."""

    calls: list[str] = []  # noqa: RUF012

    def configure(self, params: Mapping[str, Any]) -> float:
        self.calls.append("configure")
        return super().configure(params)

    def columns(self, config: Any, roles: ColumnRoles, schema: pa.Schema) -> ColumnRoles:
        self.calls.append("columns")
        return super().columns(config, roles, schema)

    @contextmanager
    def rendezvous(self, workers: Any) -> Iterator[str]:
        self.calls.append("rendezvous")
        yield f"{workers.layout.workers} workers meet"
        self.calls.append("left")

    def run_worker(self, context: Any, shards: Any, config: float, settings: Any, meeting: Any) -> Any:
        return (meeting, context.rank), super().run_worker(context, shards, config, settings, None)

    def collect(self, values: Any) -> Any:
        self.calls += [f"run_worker {rank}: {meeting}" for (meeting, rank), _ in values]
        self.calls.append("collect")
        return super().collect([value for _, value in values])

    def save(self, model: Any) -> Mapping[str, bytes]:
        self.calls.append("save")
        return super().save(model)


class LinearPlugin:
    @hookimpl
    def shardfit_trainers(self) -> dict[str, Any]:
        return {"linear": LinearTrainer, "recording": RecordingTrainer}


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register(LinearPlugin())
    return made


def job_of(stage: Path, data: Any = TABLE, **changes: Any) -> Job:
    given = {"trainer": "linear", "data": data, "columns": ROLES, "stage": str(stage), **changes}
    return Job(**given)


def weights_by_numpy() -> Any:
    columns = [np.ones(ROWS), *(np.nan_to_num(TABLE[name].to_numpy().astype(np.float64)) for name in FEATURES)]
    return np.linalg.lstsq(np.column_stack(columns), TABLE["delay"].to_numpy(), rcond=None)[0]


def assert_every_row_once(result: TrainResult) -> None:
    coverage = result.coverage["train"]
    assert coverage.exact
    assert (coverage.planned.rows, coverage.handed.rows) == (ROWS, ROWS)


def test_the_whole_trainer_is_forty_lines() -> None:
    assert len(inspect.getsource(LinearTrainer).splitlines()) <= 40


def test_it_trains_in_this_process_with_proof_that_every_row_was_used_once(registry: Registry, tmp_path: Path) -> None:
    result = train(job_of(tmp_path, engine="inline"), registry=registry)
    assert_every_row_once(result)
    np.testing.assert_allclose(result.model["weights"], weights_by_numpy(), rtol=1e-8)
    assert (
        result.trainer.load({"model.json": result.store.read(f"model/{result.run_id}", "model.json")}) == result.model
    )


def test_it_trains_on_several_processes_to_the_same_model(
    registry: Registry, tmp_path: Path, four_processes: ProcessEngine
) -> None:
    files = write_unevenly(TABLE, tmp_path / "table")
    together = train(job_of(tmp_path, files, engine="ray", workers=2, cpus_per_worker=1), registry=registry)
    alone = train(job_of(tmp_path, files, engine="inline"), registry=registry)
    assert together.plan.layout.workers == 2
    assert_every_row_once(together)
    assert together.model == alone.model


def test_calls_come_in_the_order_of_the_contract(registry: Registry, tmp_path: Path) -> None:
    RecordingTrainer.calls.clear()
    train_on_threads(job_of(tmp_path, trainer="recording"), 2, registry=registry)
    assert RecordingTrainer.calls == [
        "configure",
        "columns",
        "rendezvous",
        "left",
        "run_worker 0: 2 workers meet",
        "run_worker 1: 2 workers meet",
        "collect",
        "save",
    ]


def test_its_mistakes_in_parameters_are_refused_before_anything_else(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnknownParameterError, match="ridge"):
        train(job_of(tmp_path, params={"rigde": 1.0}), registry=registry)


def test_it_predicts_streaming_and_in_order(registry: Registry, tmp_path: Path) -> None:
    result = train(job_of(tmp_path, engine="inline"), registry=registry)
    data = DataConnector.of(TABLE.select(FEATURES))
    found = predict(result.trainer, result.model, data, registry, WorkerRequest(engine="inline"))
    columns = [np.ones(ROWS), *(np.nan_to_num(TABLE[name].to_numpy().astype(np.float64)) for name in FEATURES)]
    np.testing.assert_allclose(found.to_numpy(), np.column_stack(columns) @ result.model["weights"])


@pytest.mark.parametrize(
    "weights", [np.zeros(len(FEATURES) + 1), np.zeros(1)], ids=["after predicting", "after an error"]
)
def test_what_is_predicted_from_is_closed(registry: Registry, weights: Any) -> None:
    class Closing(ArrowSource):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    source = Closing(TABLE.select(FEATURES))
    model = {"names": FEATURES, "weights": weights.tolist()}
    fails = pytest.raises(WorkerError) if len(weights) == 1 else nullcontext()
    with fails:
        predict(LinearTrainer(), model, DataConnector.of(source), registry, WorkerRequest(engine="inline"))
    assert source.closed == 1


def test_a_connector_made_before_any_registry_is_read_by_the_source_of_the_run(tmp_path: Path) -> None:
    class Recipe:
        """What no built-in source can read."""

    connector = DataConnector.of(Recipe())

    class Cook:
        def claims(self, data: object) -> Claim | None:
            return Claim(50, "a recipe") if isinstance(data, Recipe) else None

        def open(self, data: object, options: Mapping[str, Any]) -> ArrowSource:
            return ArrowSource(TABLE, name="a cooked table")

    class CookingPlugin:
        @hookimpl
        def shardfit_sources(self) -> dict[str, Any]:
            return {"cook": Cook()}

    registry = Registry()
    for plugin in (LinearPlugin(), CookingPlugin()):
        registry.register(plugin)
    result = train(job_of(tmp_path, connector, engine="inline"), registry=registry)
    assert_every_row_once(result)
    assert "a cooked table" in result.plan.datasets["train"].source.describe()
    without = Registry()
    without.register(LinearPlugin())
    with pytest.raises(InvalidArgumentError, match="Recipe"):
        train(job_of(tmp_path, connector, engine="inline"), registry=without)


class StoppingTrainer(LinearTrainer):
    """Ends as a loop does that is asked to stop: with what it has, and without another event."""

    cancellation: Cancellation

    def run_worker(self, context: Any, shards: Any, config: float, settings: Any, meeting: None) -> Any:
        found = super().run_worker(context, shards, config, settings, meeting)
        self.cancellation.cancel()
        assert context.should_stop()
        return found


def test_what_a_worker_has_when_the_run_is_cancelled_is_not_published(registry: Registry, tmp_path: Path) -> None:
    StoppingTrainer.cancellation = Cancellation()
    plugin = type("Plugin", (), {"shardfit_trainers": hookimpl(lambda self: {"stopping": StoppingTrainer})})
    registry.register(plugin())
    job = job_of(tmp_path, trainer="stopping", engine="inline")
    with pytest.raises(RunCancelledError):
        train(job, registry=registry, cancellation=StoppingTrainer.cancellation)
    assert not list(LocalStore(tmp_path).list("model/"))

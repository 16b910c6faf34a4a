"""Runs in a real MLflow tracking store, an SQLite file: what was asked, what came out, and the model itself."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.errors import ShardfitError
from shardfit.events import RunStarted
from shardfit_lightgbm import LightGBMEstimator
from shardfit_xgboost import XGBEstimator

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # MLflow's own
    pytest.mark.skipif(
        find_spec("mlflow") is None or find_spec("sqlalchemy") is None,
        reason="MLflow is not installed: pip install 'shardfit-stages[mlflow]' sqlalchemy alembic",
    ),
]


def data() -> pa.Table:
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 400))
    return pa.table(
        {"x": x, "z": z, "y": 2 * x + z, "kind": (x > 0).astype(int) + (z > 0), "word": np.where(x > 1, "a", "b")}
    )


class Tracking:
    """A new tracking store, with an experiment whose artifacts are beside it."""

    def __init__(self, folder: Path) -> None:
        # Here, since importing MLflow takes seconds that those who collect tests need not spend.
        import mlflow.lightgbm
        import mlflow.xgboost
        from mlflow.tracking import MlflowClient

        from shardfit_stages.mlflow_observer import MLflowObserver

        self.mlflow = mlflow
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        self.client.create_experiment("tests", artifact_location=f"file://{folder / 'artifacts'}")
        self._make = MLflowObserver

    def observer(self, **arguments: Any) -> Any:
        return self._make(self.uri, "tests", **arguments)

    def path(self, run: str, name: str) -> str:
        return str(self.client.download_artifacts(run, name))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Tracking(tmp_path_factory.mktemp("mlflow"))


def test_a_run_is_logged_with_what_was_asked_and_its_model_loads_with_mlflow_alone(
    tracking: Tracking, tmp_path: Path
) -> None:
    observer = tracking.observer(registered_model="prices")
    estimator = XGBEstimator(
        6,
        params={"max_depth": 3, "eval_metric": ["rmse"]},
        artifact_stage_location=os.fspath(tmp_path / "stage"),
        observers=[observer],
    )
    booster = estimator.fit(data(), ["x", "z"], "y", eval_set=data())
    run = tracking.client.get_run(observer.run_id(estimator.result.run_id))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == estimator.result.run_id
    for name, value in {"trainer": "xgboost", "params.max_depth": "3", "columns.label": "['y']", "seed": "0"}.items():
        assert run.data.params[name] == value
    history = tracking.client.get_metric_history(run.info.run_id, "eval-rmse")
    assert [point.value for point in sorted(history, key=lambda point: point.step)] == list(
        estimator.result.metrics["eval-rmse"]
    )
    assert run.data.tags["shardfit.address"] == estimator.result.get_model_dir()
    plan = json.loads(Path(tracking.path(run.info.run_id, "plan.json")).read_text())
    assert plan["datasets"]["train"]["digest"] == run.data.tags["shardfit.shard_plan.train"]
    manifest = json.loads(Path(tracking.path(run.info.run_id, "manifest.json")).read_text())
    assert manifest["metadata"]["trainer"] == "xgboost"

    loaded = tracking.mlflow.xgboost.load_model(tracking.path(run.info.run_id, "model"))
    assert loaded.save_raw("json") == booster.save_raw("json")
    function = tracking.mlflow.pyfunc.load_model(tracking.path(run.info.run_id, "model"))
    assert function.metadata.signature.inputs.input_names() == ["x", "z"]
    assert function.metadata.signature.outputs.input_types()[0].name == "float"
    frame = data().select(["x", "z"]).to_pandas()
    assert function.predict(frame).tolist() == estimator.predict(data()).to_pylist()
    (version,) = tracking.client.search_model_versions("name='prices'")
    assert version.run_id == run.info.run_id


def test_lightgbm_is_logged_in_its_own_flavour_with_several_outputs(tracking: Tracking, tmp_path: Path) -> None:
    observer = tracking.observer()
    estimator = LightGBMEstimator(
        4,
        params={"objective": "multiclass", "num_class": 3, "num_leaves": 5, "verbosity": -1},
        artifact_stage_location=os.fspath(tmp_path / "stage"),
        observers=[observer],
    )
    booster = estimator.fit(data(), ["x", "z", "word"], "kind", categorical_cols=["word"])
    model = tracking.path(observer.run_id(estimator.result.run_id), "model")
    assert tracking.mlflow.lightgbm.load_model(model).model_to_string() == booster.model_to_string()
    signature = tracking.mlflow.models.get_model_info(model).signature
    assert signature.outputs.inputs[0].shape == (-1, 3)


def test_a_run_that_fails_is_failed_there_and_no_secret_is_logged(tracking: Tracking, tmp_path: Path) -> None:
    observer = tracking.observer()
    seen: list[str] = []
    table = pa.table({"x": [1.0, 2.0], "y": [1.0, None]})
    estimator = XGBEstimator(
        2,
        artifact_stage_location=os.fspath(tmp_path / "stage"),
        observers=[observer, lambda event: seen.append(event.run_id)],
    )
    with pytest.raises(ShardfitError):
        estimator.fit(table, ["x"], "y")
    run = tracking.client.get_run(observer.run_id(seen[0]))
    assert run.info.status == "FAILED"
    assert "'y'" in run.data.tags["shardfit.error"]


def test_secrets_stay_out_of_params_and_tags(tracking: Tracking) -> None:
    observer = tracking.observer()
    job: Mapping[str, Any] = {"data": "parquet 's3://***@bucket'", "params": {"eta@x": 0.5}, "stage": None}
    observer(RunStarted(run_id="r", trainer="xgboost", job=job))
    params = tracking.client.get_run(observer.run_id("r")).data.params
    assert params == {"data": "parquet 's3://***@bucket'", "params.eta_x": "0.5"}


def test_a_model_of_another_trainer_is_kept_as_its_own_files(tracking: Tracking, tmp_path: Path) -> None:
    from shardfit.hookspecs import hookimpl
    from shardfit.job import Job
    from shardfit.registry import Registry
    from shardfit.testing.mean_trainer import MeanTrainer
    from shardfit.train import train

    class Plugin:
        @hookimpl
        def shardfit_trainers(self) -> Mapping[str, Any]:
            return {"mean": MeanTrainer}

    registry = Registry()
    registry.register(Plugin())
    observer = tracking.observer(registry=registry)
    job = Job(
        trainer="mean",
        data=data().select(["x", "y"]),
        columns={"label": "y"},
        engine="inline",
        stage=tmp_path / "stage",
    )
    result = train(job, registry=registry, observers=[observer])
    saved: Sequence[str] = sorted(result.trainer.save(result.model))
    run = observer.run_id(result.run_id)
    assert sorted(path.name for path in Path(tracking.path(run, "model")).iterdir()) == saved

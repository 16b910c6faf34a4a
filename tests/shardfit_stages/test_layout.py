"""Whoever trains, wherever: the model of a run lies in the same layout, and loads with its framework alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost

from scripts.object_servers import Server
from shardfit.connector import DataConnector
from shardfit.registry import default_registry
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_pytorch import PyTorchDistributor, PyTorchScalingConfig, get_context
from shardfit_xgboost import XGBEstimator, XGBScalingConfig
from tests.shardfit.worker_processes import ProcessEngine

STAGE = "DB_NAME.SCHEMA_NAME.STAGE_NAME"
FILES = {"xgboost": ["features.json", "model.ubj"], "lightgbm": ["features.json", "model.txt"]}
SAID = {
    "best_round",
    "category_maps",
    "created",
    "history",
    "metrics",
    "run_id",
    "shard_plan",
    "trainer",
    "versions",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the rows in a stage; without a catalogue, all stages are folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDFIT_STAGE_ROOT", os.fspath(tmp_path / "stages"))
    put_rows(tmp_path / "stages" / ".named" / "DB_NAME" / "SCHEMA_NAME" / "ROWS" / "train")
    return tmp_path


def put_rows(folder: Path) -> None:
    folder.mkdir(parents=True)
    pq.write_table(awkward_table(1200), folder / "a.parquet", row_group_size=200)


def fitted(trainer: str, engine: Any, workers: int = 1) -> Any:
    scaling: Any = XGBScalingConfig if trainer == "xgboost" else LightGBMScalingConfig
    kind: Any = XGBEstimator if trainer == "xgboost" else LightGBMEstimator
    params = {"verbosity": -1, "num_leaves": 7} if trainer == "lightgbm" else {"max_depth": 3}
    estimator = kind(
        3,
        params={**params, "objective": "binary:logistic" if trainer == "xgboost" else "binary"},
        scaling_config=scaling(workers, 1, engine=engine),
        artifact_stage_location=STAGE,
        checkpoint_every_rounds=1,
    )
    data = DataConnector.from_parquet("@DB_NAME.SCHEMA_NAME.ROWS/train/")
    estimator.fit(data, FEATURES, "late", eval_set=data, categorical_cols=CATEGORICAL)
    return estimator


def check_layout(trainer: str, estimator: Any) -> dict[str, bytes]:
    """Check what a run left in its stage; return the files of the model."""
    result, store = estimator.result, default_registry().open_store(STAGE)
    model, record = f"model/{result.run_id}", f"run/{result.run_id}/record"
    assert {model, record} <= set(store.list())
    checkpoints = set(store.list(f"run/{result.run_id}/checkpoint-"))
    assert {name.rpartition("-")[2] for name in checkpoints} <= {"1", "2", "3"}
    assert result.get_model_dir() == store.address(model)
    manifest = store.manifest(model)
    assert [stored.name for stored in manifest.files] == FILES[trainer]
    said = manifest.metadata
    assert set(said) == SAID
    assert (said["trainer"], said["run_id"]) == (trainer, result.run_id)
    assert said["shard_plan"] == result.plan.datasets["train"].shard_plan.digest
    assert said["category_maps"] == {
        column: sorted(set(awkward_table(1200).column(column).drop_null().to_pylist())) for column in CATEGORICAL
    }
    assert said["versions"][trainer]
    return {stored.name: store.read(model, stored.name) for stored in manifest.files}


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_one_worker_and_two_end_in_the_same_layout_with_the_same_model(
    trainer: str, place: Path, four_processes: ProcessEngine
) -> None:
    alone, together = fitted(trainer, "inline"), fitted(trainer, "ray", workers=2)
    assert together.result.plan.layout.workers == 2
    files = [check_layout(trainer, estimator) for estimator in (alone, together)]
    if trainer == "xgboost":
        assert files[0] == files[1]


def leave_a_file() -> None:
    context = get_context()
    Path(context.get_model_dir(), "model.pt").write_bytes(b"weights")
    context.save_checkpoint(step=1, wait=True)


def test_a_pytorch_loop_ends_in_the_same_layout(place: Path, four_processes: ProcessEngine) -> None:
    for ranks in (1, 2):
        finished = PyTorchDistributor(leave_a_file, PyTorchScalingConfig(num_nodes=ranks)).run(
            artifact_stage_location=STAGE
        )
        store, run_id = default_registry().open_store(STAGE), finished.run_id
        assert {f"model/{run_id}", f"run/{run_id}/record"} <= set(store.list())
        assert set(store.list(f"run/{run_id}/checkpoint-")) == {f"run/{run_id}/checkpoint-1-1"}
        assert finished.get_model_dir() == store.address(f"model/{run_id}")
        assert Path(finished.get_model_dir()).is_relative_to(place / "stages" / ".named" / STAGE.replace(".", "/"))
        manifest = store.manifest(f"model/{run_id}")
        assert [stored.name for stored in manifest.files] == ["model.pt"]
        # Which categories there are is for the loop to say, in a file of its own.
        assert set(manifest.metadata) == SAID - {"category_maps"}
        assert (manifest.metadata["trainer"], manifest.metadata["run_id"]) == ("pytorch", run_id)


def test_the_framework_alone_loads_the_model_from_its_folder(place: Path) -> None:
    for trainer in ("xgboost", "lightgbm"):
        estimator = fitted(trainer, "inline")
        folder = Path(estimator.result.get_model_dir())
        assert folder.is_relative_to(place / "stages" / ".named" / "DB_NAME" / "SCHEMA_NAME" / "STAGE_NAME" / "model")
        manifest = json.loads((folder / "manifest.json").read_text())
        assert set(manifest["metadata"]) == SAID
        if trainer == "xgboost":
            loaded = xgboost.Booster(model_file=folder / "model.ubj")
            assert loaded.save_raw("json") == estimator.get_booster().save_raw("json")
        else:
            text = lightgbm.Booster(model_file=folder / "model.txt").model_to_string()
            assert text == estimator.get_booster().model_to_string()
        # The codes of categories are in the manifest: nothing of shardfit is needed to encode them.
        rows = awkward_table(1200)
        codes = {c: {v: i for i, v in enumerate(m)} for c, m in manifest["metadata"]["category_maps"].items()}
        known = [codes[CATEGORICAL[0]].get(value, np.nan) for value in rows.column(CATEGORICAL[0]).to_pylist()]
        assert np.nanmax(known) == len(codes[CATEGORICAL[0]]) - 1


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_a_stage_in_an_object_store_has_the_same_layout_and_rows_are_read_from_it(
    trainer: str, place: Path, moto_server: Server, four_processes: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{moto_server.url}/{place.name}"
    stages = {name: {"url": f"{url}/{name}", "options": dict(moto_server.options)} for name in (STAGE, "A.B.ROWS")}
    stages["DB_NAME.SCHEMA_NAME.ROWS"] = stages.pop("A.B.ROWS")
    monkeypatch.setenv("SHARDFIT_STAGES", json.dumps(stages))
    monkeypatch.setenv("SHARDFIT_SPOOL_FOLDER", os.fspath(place / "spool"))
    from obstore.store import from_url

    store = from_url(f"{url}/A.B.ROWS", config=dict(moto_server.options), client_options={"allow_http": True})
    store.put("train/a.parquet", (place / "stages/.named/DB_NAME/SCHEMA_NAME/ROWS/train/a.parquet").read_bytes())
    estimators = [fitted(trainer, "inline"), fitted(trainer, "ray", workers=2)]
    files = [check_layout(trainer, estimator) for estimator in estimators]
    if trainer == "xgboost":
        assert files[0] == files[1]
    assert all(estimator.result.get_model_dir().startswith(f"{url}/{STAGE}/model/") for estimator in estimators)
    assert any("read again from the stage" in warning for warning in estimators[0].result.warnings)
    assert [path for path in (place / "spool").rglob("*") if path.is_file() and path.name != ".lock"] == []

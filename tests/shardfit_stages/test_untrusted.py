"""What lies in a stage may be a stranger's: nothing is unpickled, written outside, or believed."""

from __future__ import annotations

import ast
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from obstore.store import from_url
from typer.testing import CliRunner

from scripts.object_servers import Server
from shardfit.cli import app
from shardfit.errors import ShardfitError
from shardfit.registry import default_registry
from shardfit.stores.local import LocalStore
from shardfit_stages.store import ObjectArtifactStore

ROOT = Path(__file__).parents[2]
# An error that was pickled one call before, to find out whether it can be; the user's own loop on its way to workers.
UNPICKLE = {"core/src/shardfit/engines/task_runner.py", "plugins/pytorch/src/shardfit_pytorch/user_loop.py"}
LOADERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def unpickles(text: str) -> list[str]:
    """Return the calls that would unpickle what they are given."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, keywords = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        module, _, function = name.rpartition(".")
        unsafe = module.split(".")[0] in LOADERS and function in {"load", "loads", "open", "Unpickler"}
        unsafe |= name == "torch.load" and keywords.get("weights_only") != "True"
        unsafe |= keywords.get("allow_pickle") == "True"
        if unsafe:
            found.append(name)
    return found


def test_no_package_unpickles_what_it_reads() -> None:
    assert unpickles("pickle.loads(x)\ntorch.load(f)\nnp.load(f, allow_pickle=True)\njson.loads(x)") != []
    assert unpickles("torch.load(f, weights_only=True)\nnp.load(f)\njson.loads(x)") == []
    files = [path for path in ROOT.glob("**/src/shardfit*/**/*.py") if not {"build", "testing"} & set(path.parts)]
    assert len(files) > 100
    guilty = {path.relative_to(ROOT).as_posix() for path in files if unpickles(path.read_text(encoding="utf-8"))}
    assert guilty == UNPICKLE


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.fspath(self._path),))


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_a_pickle_in_the_place_of_a_model_is_refused_and_not_run(trainer: str, tmp_path: Path) -> None:
    store, bomb = LocalStore(tmp_path / "stage"), pickle.dumps(Bomb(tmp_path / "exploded"))
    names = {"xgboost": "model.ubj", "lightgbm": "model.txt"}
    store.put("model/1", {names[trainer]: bomb, "features.json": bomb})
    loader = default_registry().trainer(trainer)
    with pytest.raises(ShardfitError):
        loader.load({name: store.read("model/1", name) for name in (names[trainer], "features.json")})
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "MODEL.TXT", "..\\escaped"])
def test_what_a_manifest_in_an_object_store_names_is_not_believed(
    name: str, moto_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"{moto_server.url}/{tmp_path.name}"
    options = dict(moto_server.options)
    ObjectArtifactStore(url, options).put("model/1", {"model.txt": b"tree"})
    bucket = from_url(url, config=options, client_options={"allow_http": True})
    manifest = json.loads(bytes(bucket.get("model/1/manifest.json").bytes()))
    manifest["files"].append({**manifest["files"][0], "name": name})
    bucket.put("model/1/manifest.json", json.dumps(manifest).encode())
    monkeypatch.setenv("SHARDFIT_STAGES", json.dumps({"A.B.C": {"url": url, "options": options}}))
    for command in (["show", "A.B.C", "model/1"], ["get", "A.B.C", "model/1", "out/here"]):
        done = CliRunner().invoke(app, ["stage", *command])
        assert done.exit_code == 2
        assert "checking the names in an artifact" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_category_maps_are_plain_values_whatever_the_categories_are(tmp_path: Path) -> None:
    from shardfit_xgboost import XGBEstimator

    table = pa.table({"c": pa.array(["b", None, "a", 'q"'] * 25), "n": [1, 2, 3, 4] * 25, "y": np.arange(100.0)})
    estimator = XGBEstimator(1, artifact_stage_location=os.fspath(tmp_path))
    estimator.fit(table, ["c", "n"], "y", categorical_cols=["c", "n"])
    result = estimator.result
    assert result.store.manifest(f"model/{result.run_id}").metadata["category_maps"] == {
        "c": ["a", "b", 'q"'],
        "n": [1, 2, 3, 4],
    }

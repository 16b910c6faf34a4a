"""Three hosts with three addresses: workers land on all of them, and a lost host is noticed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def load_harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shardfit_cluster_script", ROOT / "scripts" / "cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


HARNESS = load_harness()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    if (reason := HARNESS.why_impossible()) is not None:
        pytest.skip(f"no cluster of three hosts here; {reason}")
    with HARNESS.three_host_cluster() as raised:
        yield raised


def last_line(output: str) -> Any:
    # Ray may say something of a lost host, behind spaces, after the program's last word.
    return json.loads([line for line in output.splitlines() if line.startswith(("{", "[{", "[["))][-1])


TRAINING = """
import json
import sys

from shardfit import DataConnector
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table, write_unevenly
from shardfit_xgboost import XGBEstimator, XGBScalingConfig

files = write_unevenly(awkward_table(6_000), __import__("pathlib").Path(sys.path[0]) / "rows")
evaluation = DataConnector.from_arrow(awkward_table(2_000, seed=1))


def fit(**scaling):
    params = {"max_depth": 5, "subsample": 0.8, "eval_metric": ["logloss", "auc"]}
    estimator = XGBEstimator(15, "binary:logistic", params, XGBScalingConfig(**scaling), early_stopping_rounds=5)
    roles = {"weight_col": "weight", "categorical_cols": CATEGORICAL}
    booster = estimator.fit(DataConnector.from_parquet(files), FEATURES, "late", evaluation, **roles)
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    return estimator, trees


together, trees = fit(num_workers=3)
alone, expected = fit(engine="inline", num_workers=1)
print(json.dumps({
    "nodes": [slot.node.partition("-")[0] for slot in together.result.plan.layout.slots],
    "same_trees": trees == expected,
    "same_metrics": together.get_eval_results() == alone.get_eval_results(),
    "exact": all(coverage.exact for coverage in together.result.coverage.values()),
}))
"""


def test_workers_on_three_hosts_grow_the_same_trees_as_one_process(cluster: Any) -> None:
    found = last_line(cluster.run_script(TRAINING))
    assert found == {
        "nodes": list(cluster.addresses),
        "same_trees": True,
        "same_metrics": True,
        "exact": True,
    }


LOOP = """
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from shardfit import ShardedDataConnector
from shardfit.testing.tables import awkward_table
from shardfit_pytorch import PyTorchDistributor, get_context


def train_func():
    context = get_context()
    dist.init_process_group(backend="gloo")
    torch_dataset = context.get_dataset_map()["train"].get_shard().to_torch_dataset(batch_size=1024)
    model = DistributedDataParallel(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch_dict in DataLoader(torch_dataset):
        X, y = batch_dict["weight"].T.float(), batch_dict["late"].T.float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hosts = [None] * context.get_world_size()
    dist.all_gather_object(hosts, (context.get_rank(), context.get_node_rank(), context.get_local_rank()))
    if context.get_rank() == 0:
        torch.save(model.module.state_dict(), Path(context.get_model_dir(), "model.pt"))
        Path(context.get_model_dir(), "hosts.json").write_text(json.dumps(hosts))
    dist.destroy_process_group()


data = ShardedDataConnector.from_dataframe(awkward_table(10_000).select(["weight", "late"]))
stage = "DB_NAME.SCHEMA_NAME.STAGE_NAME"
result = PyTorchDistributor(train_func).run({"train": data}, artifact_stage_location=stage)
model_dir = Path(result.get_model_dir())
manifest = json.loads((model_dir / "manifest.json").read_text())
print(json.dumps({
    "stage": "/".join(model_dir.parts[-5:-1]),
    "files": sorted(path.name for path in model_dir.iterdir()),
    "manifest": [stored["name"] for stored in manifest["files"]],
    "trainer": manifest["metadata"]["trainer"],
    "run": sorted(path.name for path in model_dir.parents[1].joinpath("run", model_dir.name, "record").iterdir()),
    "hosts": json.loads((model_dir / "hosts.json").read_text()),
    "loads": sorted(torch.load(model_dir / "model.pt", weights_only=True)),
    "rows": result.coverage["train"].handed.rows,
    "exact": result.coverage["train"].exact,
}))
"""


def test_a_pytorch_loop_runs_as_it_is_written_on_three_hosts(cluster: Any) -> None:
    found = last_line(cluster.run_script(LOOP))
    assert found["hosts"] == [[rank, rank, 0] for rank in range(3)]
    assert (found["rows"], found["exact"]) == (10_000, True)
    assert found["loads"] == ["bias", "weight"]
    # The same layout as that of the other trainers, below.
    assert (found["stage"], found["trainer"]) == ("DB_NAME/SCHEMA_NAME/STAGE_NAME/model", "pytorch")
    assert found["manifest"] == ["hosts.json", "model.pt"]
    assert found["files"] == ["hosts.json", "manifest.json", "model.pt"]
    assert found["run"] == ["manifest.json", "record.json"]


STAGES = """
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from shardfit import DataConnector
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from shardfit_xgboost import XGBEstimator, XGBScalingConfig

rows = Path(sys.argv[1]) / ".named" / "DB_NAME" / "SCHEMA_NAME" / "ROWS" / "train"
rows.mkdir(parents=True)
pq.write_table(awkward_table(3_000), rows / "a.parquet", row_group_size=500)
data = DataConnector.from_parquet("@DB_NAME.SCHEMA_NAME.ROWS/train/")


def layout(kind, scaling, params):
    estimator = kind(3, params=params, scaling_config=scaling, artifact_stage_location="DB_NAME.SCHEMA_NAME.STAGE_NAME")
    estimator.fit(data, FEATURES, "late", categorical_cols=CATEGORICAL)
    folder = Path(estimator.result.get_model_dir())
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "stage": "/".join(folder.parts[-5:-1]),
        "files": sorted(path.name for path in folder.iterdir()),
        "manifest": [stored["name"] for stored in manifest["files"]],
        "said": sorted(manifest["metadata"]),
        "trainer": manifest["metadata"]["trainer"],
        "category_maps": manifest["metadata"]["category_maps"],
        "run": sorted(path.name for path in folder.parents[1].joinpath("run", folder.name, "record").iterdir()),
    }


xgboost, lightgbm = {"objective": "binary:logistic"}, {"objective": "binary", "verbosity": -1}
trainers = [(XGBEstimator, XGBScalingConfig, xgboost), (LightGBMEstimator, LightGBMScalingConfig, lightgbm)]
print(json.dumps([
    [layout(kind, scaling(**where), params) for kind, scaling, params in trainers]
    for where in ({"num_workers": 3}, {"num_workers": 1, "engine": "inline"})
]))
"""


def test_both_trainers_end_in_the_same_layout_of_a_named_stage_as_one_process(cluster: Any) -> None:
    stages = Path(cluster.folder) / "stages"
    script = STAGES.replace("sys.argv[1]", repr(str(stages)))
    together, alone = last_line(cluster.run_script(script, environ={"SHARDFIT_STAGE_ROOT": str(stages)}))
    assert together == alone
    assert [found["files"] for found in together] == [
        ["features.json", "manifest.json", "model.ubj"],
        ["features.json", "manifest.json", "model.txt"],
    ]
    assert {found["stage"] for found in together} == {"DB_NAME/SCHEMA_NAME/STAGE_NAME/model"}
    assert all(len(found["category_maps"]["shop"]) == 4 for found in together)


PLACEMENT_AND_LOSS = """
import json
import socket
import time

from shardfit.default_scaling import DefaultScalingPolicy
from shardfit.engines import current_resources, make_engine
from shardfit.errors import WorkerLostError
from shardfit.scaling import ScalingRequest


def reach(context, address, port):
    with socket.create_connection((address, port), timeout=10) as connection:
        return context.rank, connection.getsockname()[0]


def work(context):
    context.progress("fit", 0, 1)
    while True:
        time.sleep(0.1)


cluster = current_resources()
layout = DefaultScalingPolicy().decide(cluster, ScalingRequest(rows=10**9, bytes=10**12))
engine = make_engine(layout.engine)
with engine.start(layout) as group:
    with socket.create_server((group.address, 0)) as server:
        server.settimeout(10)
        found = group.run(reach, [server.getsockname()] * layout.workers, lambda event: None)
    nodes = [node.address for node in cluster.nodes]
    placed = {"nodes": nodes, "driver": group.address, "workers": found, "engine": layout.engine}
    try:
        group.run(work, [()] * layout.workers, lambda event: print("working", flush=True))
    except WorkerLostError as error:
        message = str(error)
with engine.start(DefaultScalingPolicy().decide(engine.resources(), ScalingRequest(workers=2))) as group:
    ranks = group.run(lambda context: context.rank, [()] * 2, lambda event: None)
left = [node.address for node in engine.resources().nodes]
print(json.dumps({**placed, "message": message, "ranks": ranks, "left": left}))
"""


def test_each_host_has_a_worker_that_reaches_the_driver_and_one_that_is_lost_is_named(cluster: Any) -> None:
    script = Path(cluster.folder) / "loss.py"
    script.write_text(PLACEMENT_AND_LOSS)
    with cluster.start([sys.executable, str(script)]) as driver:
        for _ in range(3):
            assert driver.stdout.readline() == "working\n"
        cluster.lose(2)
        found = last_line(driver.communicate(timeout=120)[0])
    assert found["engine"] == "ray"
    assert found["nodes"] == list(cluster.addresses)
    assert found["driver"] == cluster.addresses[0]
    assert found["workers"] == [[rank, address] for rank, address in enumerate(cluster.addresses)]
    # The others can go on.
    assert f"worker 2 on node {cluster.addresses[2]}" in found["message"]
    assert found["ranks"] == [0, 1]
    assert found["left"] == list(cluster.addresses[:2])

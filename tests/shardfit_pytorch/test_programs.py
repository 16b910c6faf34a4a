"""The program of the README, as it is written, on 1, 2 and 4 ranks; and what the context says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shardfit import DataConnector
from shardfit.errors import InvalidArgumentError
from shardfit.stores.local import LocalStore
from shardfit_pytorch import PyTorchDistributor, PyTorchScalingConfig, get_context
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_pytorch import loops

ROWS = 5001


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_seed_style_program_runs_as_it_is_written(
    tmp_path: Path, four_processes: ProcessEngine, ranks: int
) -> None:
    hyper_params = {"learning_rate": 0.1, "epochs": 2, "note": ["any", {"json": None}]}
    result = loops.run(loops.seed_style, ranks, tmp_path, {"train": loops.sharded(ROWS)}, hyper_params)
    assert result.result.plan.layout.workers == ranks
    coverage = result.coverage["train"]
    assert (coverage.exact, coverage.handed.rows) == (True, ROWS)
    state = torch.load(Path(result.get_model_dir()) / "model.pt", weights_only=True)
    loops.network().load_state_dict(state)
    assert 0 < result.get_metrics()["loss"] < 10
    assert len(result.result.metrics["loss"]) == 2


def test_it_runs_on_a_ray_cluster(tmp_path: Path, ray_address: str) -> None:
    scaling = PyTorchScalingConfig(num_nodes=1, num_workers_per_node=2)
    hyper_params = {"learning_rate": 0.1, "epochs": 1}
    result = PyTorchDistributor(loops.seed_style, scaling).run(
        {"train": loops.sharded(ROWS)}, hyper_params, str(tmp_path)
    )
    assert (result.result.plan.layout.engine, result.result.plan.layout.workers) == ("ray", 2)
    assert (result.coverage["train"].exact, result.coverage["train"].handed.rows) == (True, ROWS)
    loops.network().load_state_dict(torch.load(Path(result.get_model_dir()) / "model.pt", weights_only=True))


def test_a_loop_runs_in_this_process_where_there_is_no_cluster(tmp_path: Path) -> None:
    result = PyTorchDistributor(loops.metric_only).run(artifact_stage_location=str(tmp_path))
    assert result.result.plan.layout.engine == "inline"
    assert result.get_metrics() == {"answer": 42.0}
    assert (result.coverage, result.get_checkpoint_location()) == ({}, None)
    assert list(LocalStore(tmp_path).list("model/")) == [f"model/{result.run_id}"]


def test_the_context_says_who_and_where_a_rank_is(tmp_path: Path, four_processes: ProcessEngine) -> None:
    datasets = {"train": loops.sharded(101), "all": DataConnector.from_arrow(loops.houses(7))}
    result = loops.run(loops.tell, 3, tmp_path, datasets, {"a": 1})
    told = json.loads(Path(result.get_model_dir(), "told", "everyone.json").read_text())
    assert [each["rank"] for each in told] == [0, 1, 2]
    assert [each["node_rank"] for each in told] == [0, 1, 2]
    assert {(each["local_rank"], each["local_world_size"], each["world_size"]) for each in told} == {(0, 1, 3)}
    assert len({(each["master_addr"], each["master_port"]) for each in told}) == 1
    assert {(each["default_backend"], *each["supported_backends"]) for each in told} == {("gloo", "gloo")}
    assert [each["environment"]["RANK"] for each in told] == ["0", "1", "2"]
    assert sorted(each["datasets"]["train"] for each in told) == [33, 34, 34]
    assert {(each["datasets"]["all"], each["hyper_params"]["a"], each["stop"]) for each in told} == {(7, 1, False)}
    assert not Path(result.get_model_dir(), "rank-1.txt").exists()
    assert Path(result.get_model_dir(), "rank-0.txt").read_text() == "here"


def test_outside_a_run_there_is_no_context() -> None:
    with pytest.raises(InvalidArgumentError, match="PyTorchDistributor"):
        get_context()

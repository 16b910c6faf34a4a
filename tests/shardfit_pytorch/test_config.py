"""What is refused before a worker starts: hyper-parameters, loops that cannot travel, layouts that cannot be."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardfit.errors import ArtifactError, InfeasibleRequestError, InvalidArgumentError, UnknownParameterError
from shardfit.scaling import ClusterResources, Node, ScalingRequest
from shardfit_pytorch import PyTorchDistributor, PyTorchScalingConfig, WorkerResourceConfig
from shardfit_pytorch.config import check_hyper_params, configure
from shardfit_pytorch.scaling import NodesPolicy
from shardfit_pytorch.user_loop import UserLoop
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_pytorch import loops

MACHINE = ClusterResources((Node("local", "127.0.0.1", 2.0, memory=8),))
CLUSTER = ClusterResources((Node("a", "10.0.0.1", 4.0), Node("b", "10.0.0.2", 8.0), Node("c", "10.0.0.3", 0.0)), "ray")
GPUS = ClusterResources((Node("a", "10.0.0.1", 4.0, 2.0), Node("b", "10.0.0.2", 8.0, 4.0)), "ray")


def layout(cluster: ClusterResources, **config: Any) -> list[tuple[str, int, int]]:
    decided = NodesPolicy(PyTorchScalingConfig(**config)).decide(cluster, ScalingRequest())
    assert (decided.engine == "inline") == (cluster is MACHINE and decided.workers == 1)
    return [(slot.node, slot.cpus, slot.gpus) for slot in decided.slots]


@pytest.mark.parametrize(
    ("cluster", "config", "slots"),
    [
        (MACHINE, {}, [("local", 2, 0)]),
        (MACHINE, {"num_workers_per_node": 2}, [("local", 1, 0)] * 2),
        (
            MACHINE,
            {"num_workers_per_node": 4, "resource_requirements_per_worker": WorkerResourceConfig(num_cpus=0)},
            [("local", 0, 0)] * 4,
        ),
        (CLUSTER, {}, [("a", 4, 0), ("b", 8, 0)]),
        (CLUSTER, {"num_nodes": 1}, [("b", 8, 0)]),
        (CLUSTER, {"num_workers_per_node": 2}, [("a", 2, 0)] * 2 + [("b", 4, 0)] * 2),
        (CLUSTER, {"num_workers_per_node": 6}, [("b", 1, 0)] * 6),
        (GPUS, {}, [("a", 2, 1)] * 2 + [("b", 2, 1)] * 4),
        (GPUS, {"resource_requirements_per_worker": WorkerResourceConfig()}, [("a", 4, 0), ("b", 8, 0)]),
        (
            GPUS,
            {"num_nodes": 1, "resource_requirements_per_worker": WorkerResourceConfig(num_cpus=1, num_gpus=2)},
            [("b", 1, 2)] * 2,
        ),
    ],
)
def test_workers_are_placed_as_asked_for_or_everywhere(
    cluster: ClusterResources, config: dict[str, Any], slots: list[tuple[str, int, int]]
) -> None:
    assert layout(cluster, **config) == slots


@pytest.mark.parametrize(
    ("cluster", "config", "words"),
    [
        (MACHINE, {"num_nodes": 2}, ["2 nodes", "1 node can"]),
        (MACHINE, {"num_workers_per_node": 4}, ["4 workers of 1 CPU", "2 CPUs", "num_cpus=0"]),
        (
            MACHINE,
            {"resource_requirements_per_worker": WorkerResourceConfig(num_cpus=0, num_gpus=4)},
            ["4 GPUs", "0 GPUs", "num_gpus=0"],
        ),
        (CLUSTER, {"resource_requirements_per_worker": WorkerResourceConfig(num_cpus=9)}, ["9 CPUs", "12 CPUs"]),
    ],
)
def test_a_layout_that_cannot_be_says_what_there_is_and_what_to_change(
    cluster: ClusterResources, config: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InfeasibleRequestError) as raised:
        layout(cluster, **config)
    assert [word for word in words if word not in str(raised.value)] == []


def test_after_a_loss_the_nodes_that_are_left_go_on() -> None:
    policy = NodesPolicy(PyTorchScalingConfig(num_nodes=2))
    lost = policy.decide(CLUSTER, ScalingRequest())
    left = ClusterResources(CLUSTER.nodes[:1], "ray")
    after = policy.after_loss(left, ScalingRequest(), lost).layout
    assert [slot.node for slot in after.slots] == ["a"]
    assert "it had 2" in after.reasons[0]
    with pytest.raises(InfeasibleRequestError):
        policy.after_loss(ClusterResources((), "ray"), ScalingRequest(), lost)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": [1, {2}]}}, ["hyper_params['a']['b'][1]", "{2}"]),
        ({"rate": np.float32(0.5)}, ["hyper_params['rate']", "numpy.float32", "value.item()"]),
        ({"rate": float("nan")}, ["nan", "finite"]),
        ({1: "a"}, ["the key 1"]),
        ([1], ["found [1]"]),
        ({"loss": print}, ["hyper_params['loss']", "JSON values"]),
    ],
)
def test_a_hyper_parameter_that_is_not_json_is_named(value: Any, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        PyTorchDistributor(loops.metric_only).run(hyper_params=value)
    assert [word for word in words if word not in str(raised.value)] == []


def test_hyper_parameters_are_any_json_values_and_copies() -> None:
    given = {"a": [1, 2.5, None, True, "x", {"b": {}}], "c": (1, 2)}
    assert check_hyper_params(given) == {"a": [1, 2.5, None, True, "x", {"b": {}}], "c": [1, 2]}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (3, "found 3"),
        (lambda context, more: None, "needs the arguments context, more"),
        (lambda *, device: None, "needs the arguments device"),
    ],
)
def test_a_loop_takes_the_context_or_nothing(function: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        PyTorchDistributor(function)
    assert not UserLoop.of(lambda: 1).takes_context
    assert UserLoop.of(lambda context: 1).takes_context
    assert not UserLoop.of(lambda rate=1: 1).takes_context


def test_a_parameter_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownParameterError, match="'hyper_params'"):
        configure({"train_func": loops.metric_only, "hyper_parms": {}})
    with pytest.raises(InvalidArgumentError, match="train_func"):
        configure({})


def test_lambdas_and_closures_travel_as_they_are() -> None:
    number = 41
    loop = UserLoop.of(lambda: number + 1)
    assert pickle.loads(pickle.dumps(loop))(None) == 42


def test_a_closure_that_cannot_travel_says_what_it_holds(tmp_path: Path, four_processes: ProcessEngine) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        loops.run(loops.holds_a_lock(), 2, tmp_path)
    for words in ("the closure's 'lock'", "cannot pickle '_thread.lock'", "inside the loop"):
        assert words in str(raised.value)
    assert four_processes.pids == []


def test_a_loop_that_stays_in_this_process_may_hold_anything(tmp_path: Path) -> None:
    assert PyTorchDistributor(loops.holds_a_lock()).run(artifact_stage_location=str(tmp_path)).get_metrics() == {}


def test_a_place_for_the_model_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="file"):
        PyTorchDistributor(loops.metric_only).run(artifact_stage_location=str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(ArtifactError, match="TMPDIR"):
        PyTorchDistributor(loops.metric_only).run(artifact_stage_location=str(tmp_path / "stage"))


def test_the_driver_comes_to_its_plan_without_pytorch() -> None:
    program = """
import sys
from shardfit.registry import default_registry
trainer = default_registry().trainer("pytorch")
trainer.configure({"train_func": len})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)

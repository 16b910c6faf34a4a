"""After a lost worker: the policy is asked until it gives a layout, and the loss is raised if it never does."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from shardfit.engine import Engine
from shardfit.errors import WorkerLostError
from shardfit.hookspecs import hookimpl
from shardfit.registry import Registry
from shardfit.scaling import ClusterResources, Keep, Node, Resize, WorkerLayout, WorkerSlot
from shardfit.train import layout_after_loss

LAYOUT = WorkerLayout("ray", (WorkerSlot(0, "a", 1), WorkerSlot(1, "b", 1)), ("Two nodes.",))
LOST = WorkerLostError("running worker 1", "it is gone").at(1, "b")


class GrowingCluster(Engine):
    """A cluster whose second node is back when it is looked at for the third time."""

    def __init__(self) -> None:
        self.looks = 0

    def resources(self) -> ClusterResources:
        self.looks += 1
        return ClusterResources(tuple(Node(name, name, 1.0) for name in ("ab" if self.looks > 2 else "a")), "ray")

    def start(self, layout: WorkerLayout, attempt: int = 1) -> Any:
        raise AssertionError("nothing is started here")


class Patient:
    """Waits for as many nodes as were lost."""

    def decide(self, cluster: Any, request: Any) -> WorkerLayout:
        return LAYOUT

    def after_loss(self, cluster: ClusterResources, request: Any, lost: WorkerLayout) -> Keep | Resize:
        return Resize(lost) if len(cluster.nodes) == lost.workers else Keep(0.25)


@pytest.fixture
def registry() -> Registry:
    class Plugin:
        @hookimpl
        def shardfit_scaling_policies(self) -> dict[str, Any]:
            return {"patient": Patient()}

    registry = Registry()
    registry.register(Plugin())
    return registry


def plan(max_attempts: int) -> Any:
    job = SimpleNamespace(scaling="patient", max_attempts=max_attempts)
    return SimpleNamespace(job=job, request=None, layout=LAYOUT)


def test_a_policy_that_keeps_is_asked_again_after_the_wait(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    cluster = GrowingCluster()
    assert layout_after_loss(LOST, plan(max_attempts=3), registry, cluster) == LAYOUT
    assert (cluster.looks, waits) == (3, [0.25, 0.25])


def test_a_policy_that_never_gives_a_layout_ends_in_the_loss(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(WorkerLostError) as caught:
        layout_after_loss(LOST, plan(max_attempts=2), registry, GrowingCluster())
    assert (caught.value.rank, caught.value.node) == (1, "b")

"""After a lost worker: the policy is asked until it gives a layout, and the loss is raised if it never does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shardfit.after_loss import layout_after_loss
from shardfit.cancellation import Cancellation
from shardfit.engine import Engine
from shardfit.errors import RunCancelledError, WorkerLostError
from shardfit.events import WaitingForWorkers
from shardfit.hookspecs import hookimpl
from shardfit.registry import Registry
from shardfit.scaling import ClusterResources, Keep, Node, Resize, WorkerLayout, WorkerSlot

LAYOUT = WorkerLayout("ray", (WorkerSlot(0, "a", 1), WorkerSlot(1, "b", 1)), ("Two nodes.",))
LOST = WorkerLostError("running worker 1", "it is gone").at(1, "b")


class GrowingCluster(Engine):
    """A cluster whose second node is back when it is looked at for the third time."""

    def __init__(self) -> None:
        self.looks = 0

    def resources(self) -> ClusterResources:
        self.looks += 1
        return ClusterResources(tuple(Node(name, name, 1.0) for name in ("ab" if self.looks > 2 else "a")), "ray")

    def start(self, layout: WorkerLayout, attempt: int = 1, cancellation: Cancellation | None = None) -> Any:
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


def plan() -> Any:
    job = SimpleNamespace(scaling="patient")
    return SimpleNamespace(job=job, request=None, layout=LAYOUT)


class CountedCancellation(Cancellation):
    """Waits in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_a_policy_that_keeps_is_asked_again_after_the_wait_and_observers_hear_of_it(registry: Registry) -> None:
    cluster, waited, events = GrowingCluster(), CountedCancellation(), []
    assert layout_after_loss(LOST, plan(), registry, cluster, events.append, waited) == LAYOUT
    assert (cluster.looks, waited.waits) == (3, [0.25, 0.25])
    assert events == [WaitingForWorkers(workers=2, seconds_left=left) for left in (600.0, 599.75)]


def test_a_policy_that_never_gives_a_layout_ends_in_the_loss(registry: Registry) -> None:
    class Shrunk(GrowingCluster):
        def resources(self) -> ClusterResources:
            return ClusterResources((Node("a", "a", 1.0),), "ray")

    waited = CountedCancellation()
    with pytest.raises(WorkerLostError) as caught:
        layout_after_loss(LOST, plan(), registry, Shrunk(), lambda event: None, waited)
    assert (caught.value.rank, caught.value.node) == (1, "b")
    assert sum(waited.waits) == 600.0


def test_a_cancelled_run_waits_no_longer(registry: Registry) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(RunCancelledError):
        layout_after_loss(LOST, plan(), registry, GrowingCluster(), lambda event: None, cancellation)

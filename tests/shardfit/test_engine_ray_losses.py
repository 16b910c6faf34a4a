"""What the Ray engine says of a worker that does not answer any more, with answers of Ray's that are made up."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

from shardfit.engines import ray as ray_engine
from shardfit.engines.placement import Member
from shardfit.engines.ray import RayGroup
from shardfit.engines.watch import Gone
from shardfit.scaling import WorkerLayout, WorkerSlot


class MadeUpRay:
    """Says "unavailable" of what workers were asked, and what a test wants when they are asked again."""

    def __init__(self, later: Exception) -> None:
        self.later = later
        self.asked_again = 0

    def get(self, request: Any, timeout: float | None = None) -> Any:
        if timeout is None:
            raise ActorUnavailableError("The actor is temporarily unavailable", None)
        raise self.later

    def ping(self, rank: int) -> Any:
        self.asked_again += 1
        return "again"


def group_on(port: int, suspects: dict[str, float]) -> RayGroup:
    layout = WorkerLayout("ray", (WorkerSlot(0, "here", 1),), ("made up",))
    return RayGroup(layout, [Member("id", "127.0.0.1", {}, "here", port)], suspects)


def made_up(monkeypatch: pytest.MonkeyPatch, later: Exception) -> MadeUpRay:
    fake = MadeUpRay(later)
    monkeypatch.setattr(ray_engine.ray, "get", fake.get)
    monkeypatch.setattr(RayGroup, "ping", fake.ping)
    return fake


def test_a_host_that_refuses_connections_is_lost_without_waiting_for_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fake = made_up(monkeypatch, GetTimeoutError("too early"))
    suspects: dict[str, float] = {}
    group = group_on(port, suspects)
    gone = group.answer(0, "outcome")
    assert isinstance(gone, Gone)
    assert "unavailable" in gone.said
    assert fake.asked_again == 0
    assert not group.examine(0, gone.said).reached
    assert suspects.keys() == {"id"}


def test_of_a_host_that_answers_the_reason_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = made_up(monkeypatch, RayActorError(error_msg="its node was drained"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        group = group_on(listening.getsockname()[1], {})
        told = [group.answer(0, request) for request in ("outcome", "poll")]
    assert "drained" in told[0].said
    assert told[0] == told[1]
    assert fake.asked_again == 1

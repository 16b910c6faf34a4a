"""How the driver notices workers that are gone, silent or stalled, with workers and a clock that are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from shardfit.engines import watch as watch_module
from shardfit.engines.failure_detector import FailureDetector
from shardfit.engines.pulse import Pulse
from shardfit.engines.task_runner import EventBatch, Outcome
from shardfit.engines.vitals import Vitals
from shardfit.engines.watch import Gone, Watch
from shardfit.errors import DataError, WorkerLostError
from shardfit.events import Event, Progress, WorkerLost

Request = tuple[str, int, int]


class MadeUpWorkers:
    """Two workers whose answers a test decides; a call of `ready` takes half a second of the made-up clock.

    Args:
        answer: Given a request `(kind, rank, number)` and the time, the answer, or None for none yet.
        vitals: Given a rank and the time, what can be seen of it.
    """

    def __init__(self, answer: Callable[[Request, float], Any], vitals: Callable[[int, float], Vitals]) -> None:
        self.now = 0.0
        self._answer, self._vitals = answer, vitals
        self._numbers = iter(range(10**6))
        self.looks: list[tuple[int, float]] = []

    def request(self, kind: str, rank: int) -> Request:
        return (kind, rank, next(self._numbers))

    def poll(self, rank: int) -> Request:
        return self.request("poll", rank)

    def ping(self, rank: int) -> Request:
        return self.request("ping", rank)

    def ready(self, requests: Iterable[Request], timeout_s: float) -> Sequence[Request]:
        self.now += 0.5
        return [request for request in requests if self._answer(request, self.now) is not None]

    def answer(self, rank: int, request: Request) -> Any:
        return self._answer(request, self.now)

    def examine(self, rank: int, said: str) -> Vitals:
        self.looks.append((rank, self.now))
        return self._vitals(rank, self.now)

    def describe(self, rank: int) -> str:
        return f"worker {rank}"

    def place(self, rank: int) -> tuple[str, int]:
        return f"node-{rank}", 100 + rank


def watched(workers: MadeUpWorkers, monkeypatch: pytest.MonkeyPatch) -> tuple[WorkerLostError, list[Event]]:
    monkeypatch.setattr(watch_module, "FailureDetector", lambda ranks: FailureDetector(ranks, lambda: workers.now))
    monkeypatch.setattr(watch_module, "now", lambda: workers.now)
    events: list[Event] = []
    outcomes = [workers.request("outcome", rank) for rank in range(2)]
    with pytest.raises(WorkerLostError) as caught:
        Watch(workers, outcomes, events.append).results()
    return caught.value, events


def beat(now: float, moved: float = 1e9, cpu: float = 0.0, done: int = 3) -> EventBatch:
    return EventBatch((), last=False, pulse=Pulse("fit", done, max(0.0, now - moved), cpu, 2**20))


def test_a_worker_whose_process_is_stopped_is_given_up_within_fifteen_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        return beat(now, now) if kind == "poll" and (rank == 0 or now < 3) else None

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals(state="T"))
    error, events = watched(workers, monkeypatch)
    assert (error.rank, error.cause, error.node, error.pid, error.phase) == (1, "frozen", "node-1", 101, "fit")
    assert workers.now - 3 < 15
    assert [event.name for event in events] == ["WorkerLost"]


def test_a_worker_that_computes_without_a_word_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        return beat(now, now) if kind == "poll" and (rank == 0 or now < 3) else None

    def vitals(rank: int, now: float) -> Vitals:
        return Vitals(state="R", busy=now < 300) if now < 320 else Vitals()

    workers = MadeUpWorkers(answer, vitals)
    error, _ = watched(workers, monkeypatch)
    # It stopped to compute after 300 s and had been silent for longer than a mute one may be.
    assert (error.rank, error.cause) == (1, "silent")
    assert 300 < workers.now < 320


def test_the_end_of_a_worker_is_told_before_anything_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        if rank == 1 and now > 2:
            return Gone("connection error code 2")
        return beat(now, now) if kind == "poll" else None

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals(signal="SIGKILL"))
    error, events = watched(workers, monkeypatch)
    assert (error.cause, error.signal, workers.now) == ("killed", "SIGKILL", 2.5)
    (event,) = events
    assert isinstance(event, WorkerLost)
    assert (event.worker, event.pid, event.cause, event.signal) == (1, 101, "killed", "SIGKILL")
    assert workers.looks == [(1, 2.5)]


def test_workers_that_all_wait_are_stalled_and_the_one_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        if kind != "poll":
            return None
        # Rounds of two seconds until the tenth; worker 1 does not end the eleventh.
        done = min(int(now / 2), 10)
        return beat(now, min(now - now % 2, 20.0), cpu=min(now, 20.0), done=done + (rank == 0 and done == 10))

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals(state="S"))
    error, _ = watched(workers, monkeypatch)
    assert (error.rank, error.cause) == (1, "stalled")
    assert 80 < workers.now < 90
    assert "many times what it took before" in str(error)


def test_workers_that_compute_are_not_stalled_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        if now > 2000:
            return Gone("the end of the test")
        return beat(now, 0.0, cpu=0.5 * now if rank == 0 else 0.0) if kind == "poll" else None

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals())
    assert watched(workers, monkeypatch)[0].cause == "killed"
    assert workers.now > 2000


def test_nothing_is_known_of_the_first_wait_so_it_may_be_long() -> None:
    now = [0.0]
    detector = FailureDetector(range(1), lambda: now[0])
    detector.hear(0, Pulse("", 0, 599.0))
    assert detector.stalled() is None
    detector.hear(0, Pulse("", 0, 601.0))
    assert detector.stalled() == 0


def test_a_driver_that_was_stopped_itself_blames_nobody() -> None:
    now = [0.0]
    detector = FailureDetector(range(2), lambda: now[0])
    now[0] = 3600.0
    assert detector.silent() == []


def test_what_a_worker_raised_explains_a_lost_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        if kind == "outcome" and rank == 0:
            return Outcome(error=DataError("reading a.parquet", "a page is corrupt"), summary="", trace="")
        return beat(now, now) if kind == "poll" else None

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals())
    with pytest.raises(DataError):
        Watch(workers, [workers.request("outcome", rank) for rank in range(2)], lambda event: None).results()


def test_events_reach_the_observer_with_the_pulse_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Progress(worker=0, phase="fit", done=1, total=2)

    def answer(request: Request, now: float) -> Any:
        kind, rank, _ = request
        if kind == "outcome":
            return Outcome(value=rank)
        return EventBatch((told,) if rank == 0 else (), last=True, pulse=Pulse("fit", 1))

    workers = MadeUpWorkers(answer, lambda rank, now: Vitals())
    events: list[Event] = []
    outcomes = [workers.request("outcome", rank) for rank in range(2)]
    assert Watch(workers, outcomes, events.append).results() == [0, 1]
    assert events == [told]

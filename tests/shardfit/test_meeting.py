"""Workers that meet: only they get in, those that fail or die are named by all others, and nobody waits for nobody."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import struct
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shardfit.collectives.contract import Collectives
from shardfit.collectives.meeting import Meeting, join, meeting_point
from shardfit.collectives.wire import frame
from shardfit.engine import WorkerContext
from shardfit.engines import make_engine
from shardfit.errors import InvalidArgumentError, ShardfitError, WorkerError, WorkerLostError
from shardfit.testing.worker_threads import WorkerThreads
from tests.shardfit.meeting_workers import ignore, layout_of, outcomes, part, together
from tests.shardfit.worker_processes import ProcessGroup


def test_what_a_worker_raises_is_told_to_those_that_wait_for_it() -> None:
    def task(peers: Collectives) -> Any:
        if peers.rank == 1:
            raise ValueError("the data is odd")
        return peers.allreduce(np.zeros(1_000_000))

    first, failed, second = outcomes(3, task)
    assert isinstance(failed, ValueError)
    for error in (first, second):
        assert isinstance(error, WorkerLostError)
        assert "worker 1 failed: ValueError: the data is odd" in str(error)


def test_who_loses_the_connection_to_a_peer_that_went_because_a_third_failed_hears_of_the_third() -> None:
    gone = threading.Event()

    def task(peers: Collectives) -> Any:
        if peers.rank == 1:
            raise ValueError("the data is odd")
        if peers.rank == 2:
            gone.wait(60)
            return peers.allreduce(np.zeros(10))
        connection: socket.socket = peers._connections[2]  # type: ignore[attr-defined]
        connection.send(frame({"name": "allreduce", "detail": "sum", "dtype": "<f8", "shape": [10]}, 80))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        gone.set()
        return None

    error = outcomes(3, task)[2]
    assert isinstance(error, WorkerLostError)
    assert "worker 1 failed: ValueError: the data is odd" in str(error)


def test_a_worker_that_makes_fewer_calls_is_named() -> None:
    (error, done) = outcomes(2, lambda peers: peers.barrier() if peers.rank == 0 else None)
    assert isinstance(error, WorkerError)
    assert "worker 1 has left" in str(error)
    assert done is None


def test_a_worker_that_is_there_and_does_not_come_is_named_after_the_time_that_was_set() -> None:
    over = threading.Event()

    def task(peers: Collectives) -> None:
        if peers.rank == 1:
            over.wait(60)
            return
        try:
            peers.barrier()
        finally:
            over.set()

    (error, _) = outcomes(2, task, timeout_s=0.1)
    assert isinstance(error, WorkerError)
    assert "waited 0.1 s for worker 1" in str(error)


def test_workers_that_never_join_are_named() -> None:
    late = pytest.raises(WorkerError, match=r"on worker 1: waited 3 s for worker 0, worker 2")
    with WorkerThreads(layout_of(3)) as group, meeting_point(group, join_timeout_s=3.0) as meeting, late:
        join(1, meeting).__enter__()


def test_workers_that_come_after_the_time_hear_at_once_that_they_are_late() -> None:
    with WorkerThreads(layout_of(3)) as group, meeting_point(group, join_timeout_s=0.0) as meeting:
        # Their own clock, which starts when they come, would keep them for an hour.
        patient = replace(meeting, join_timeout_s=3600.0)
        for rank in range(3):
            late = rf"on worker {rank}: it came when the driver had waited 3600 s for worker 0, worker 1, worker 2\."
            with pytest.raises(WorkerError, match=late):
                join(rank, patient).__enter__()


def test_a_trainer_without_a_meeting_point_is_told_what_to_return() -> None:
    context = WorkerContext(0, 2, layout_of(2).slots[0])
    with pytest.raises(InvalidArgumentError, match=r"the meeting is None.*return meeting_point\(workers\)"):
        context.join(None).__enter__()


def test_a_stranger_without_the_key_is_not_let_in_and_keeps_nobody_waiting() -> None:
    with WorkerThreads(layout_of(2)) as group, meeting_point(group) as meeting:
        stranger = Meeting(2, meeting.host, meeting.port, b"guessed" * 4)
        with pytest.raises(WorkerLostError, match="the driver at"), join(0, stranger):
            pass
        with socket.create_connection((meeting.host, meeting.port)) as silent:
            silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
            silent.shutdown(socket.SHUT_WR)

            def task(context: WorkerContext) -> int:
                with context.join(meeting) as peers:
                    return int(peers.allreduce(1))

            assert group.run(task, [(), ()], ignore) == [2, 2]


def test_the_meeting_point_listens_on_the_address_of_the_cluster_only_and_closes() -> None:
    with WorkerThreads(layout_of(2)) as group:
        with meeting_point(group) as meeting:
            assert meeting.host == group.address
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", meeting.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((meeting.host, meeting.port))


def test_a_meeting_travels_to_workers_and_does_not_show_its_key() -> None:
    meeting = Meeting(2, "127.0.0.1", 1, b"secret")
    assert pickle.loads(pickle.dumps(meeting)) == meeting
    assert "secret" not in repr(meeting)


def test_an_address_that_is_not_of_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerThreads, "address", "203.0.113.7")
    with WorkerThreads(layout_of(2)) as group, pytest.raises(WorkerError, match=r"'203\.0\.113\.7'"):
        meeting_point(group).__enter__()


def in_process(rank: int, meeting: Meeting, ready: Any, results: Any) -> None:
    with join(rank, meeting) as peers:
        peers.barrier()
        if rank == 2:
            os._exit(9)
        try:
            for _ in range(2):
                peers.allreduce(np.zeros(100_000))
        except ShardfitError as error:
            results.put((rank, type(error).__name__, str(error)))


def test_a_process_that_is_killed_is_named_by_every_other() -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    with WorkerThreads(layout_of(3)) as group, meeting_point(group) as meeting:
        processes = [spawn.Process(target=in_process, args=(rank, meeting, None, results)) for rank in range(3)]
        for process in processes:
            process.start()
        found = sorted(results.get(timeout=60) for _ in range(2))
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 9]
    assert [(rank, kind) for rank, kind, _ in found] == [(0, "WorkerLostError"), (1, "WorkerLostError")]
    assert all("worker 2 is gone" in text for _, _, text in found)


def test_a_worker_that_dies_while_another_is_slow_is_noticed_before_the_slow_one_comes() -> None:
    """Worker 1 has sent its part and is gone; worker 2 has not come yet."""
    noticed = threading.Event()

    def task(peers: Collectives) -> str:
        if peers.rank == 2:
            noticed.wait(60)
            return ""
        if peers.rank == 1:
            connections: dict[int, socket.socket] = peers._connections  # type: ignore[attr-defined]
            call = {"name": "barrier", "detail": "", "dtype": "", "shape": []}
            connections[0].send(frame(call))
            for connection in connections.values():
                connection.shutdown(socket.SHUT_RDWR)
            return ""
        try:
            peers.barrier()
        except WorkerLostError as error:
            return str(error)
        finally:
            noticed.set()
        return "not noticed"

    found = outcomes(3, task)[0]
    assert isinstance(found, str)
    assert "worker 1 is gone" in found


def reduce_on_worker(context: WorkerContext, meeting: Meeting, victim: int | None) -> tuple[int, bytes]:
    with context.join(meeting) as peers:
        if context.rank == victim:
            os._exit(3)
        return os.getpid(), peers.allreduce(part(context.rank, (1000,), "<f8")).tobytes()


@pytest.mark.ray
def test_ray_workers_get_the_bits_that_threads_get(ray_address: str) -> None:
    with make_engine("ray").start(layout_of(3)) as group, meeting_point(group) as meeting:
        found = group.run(reduce_on_worker, [(meeting, None)] * 3, ignore)
    assert len({pid for pid, _ in found} | {os.getpid()}) == 4
    threads = together(3, lambda peers: peers.allreduce(part(peers.rank, (1000,), "<f8")).tobytes())
    assert [total for _, total in found] == threads


def test_the_engine_reports_the_worker_that_died_and_not_those_that_missed_it() -> None:
    lost = pytest.raises(WorkerLostError, match="running worker 1")
    with ProcessGroup(layout_of(3)) as group, meeting_point(group) as meeting, lost:
        group.run(reduce_on_worker, [(meeting, 1)] * 3, ignore)


def fail_on_worker(context: WorkerContext, meeting: Meeting) -> None:
    with context.join(meeting) as peers:
        if context.rank == 1:
            raise ValueError("the data is odd")
        peers.barrier()


def test_the_engine_reports_what_a_worker_raised_with_its_traceback() -> None:
    failed = pytest.raises(WorkerError, match=r"(?s)running worker 1.*the data is odd.*in fail_on_worker")
    with ProcessGroup(layout_of(3)) as group, meeting_point(group) as meeting, failed:
        group.run(fail_on_worker, [(meeting,)] * 3, ignore)

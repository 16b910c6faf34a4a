"""Why a worker was lost, from what its machine and the engine know: one sentence and one cause each."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardfit.engines import vitals
from shardfit.engines.losses import loss_event, lost_error, stalled_error
from shardfit.engines.pulse import Pulse, PulseMeter
from shardfit.engines.vitals import Vitals, WorkerPlace, end_process, last_lines, look_at, own_place
from shardfit.errors import WorkerLostError
from shardfit.events import MetricsReported, Progress

BUSY = Pulse("fit", 7, 0.5, 12.0, 300 * 2**20)
SEGFAULT = ("some line", "Fatal Python error: Segmentation fault", "Thread 0x1 (most recent call first):")


def lost(vitals: Vitals, silent_s: float = 0.0) -> WorkerLostError:
    return lost_error("worker 1 on node b (pid 7)", 1, "b", 7, vitals, BUSY, silent_s)


@pytest.mark.parametrize(
    ("vitals", "silent_s", "cause", "words"),
    [
        (Vitals(), 0, "killed", "without a word"),
        (Vitals(signal="SIGKILL"), 0, "killed", "killed by SIGKILL"),
        (Vitals(said="The process receives a SIGTERM."), 0, "killed", "killed by SIGTERM"),
        (Vitals(log=SEGFAULT), 0, "crashed", "SIGSEGV"),
        (Vitals(log=("*** SIGABRT received at time=1 ***",)), 0, "crashed", "SIGABRT"),
        (Vitals(exit_code=3), 0, "exited", "exit code 3"),
        (Vitals(said="Worker exits with an exit code 4."), 0, "exited", "exit code 4"),
        (Vitals(oom_kill="group"), 0, "out of memory", "its memory control group ran out of memory"),
        (Vitals(oom_kill="machine"), 0, "out of memory", "its machine ran out of memory"),
        (Vitals(oom_kill="engine", said="95 % used"), 0, "out of memory", "95 % used"),
        (Vitals(reached=False), 0, "node gone", "its node does not answer"),
        (Vitals(reached=False), 9, "frozen", "does not answer for 9 s"),
        (Vitals(state="T"), 8, "frozen", "stopped and gave no sign of life for 8 s"),
        (Vitals(state="D"), 61, "silent", "(state D) and gave no sign of life for 61 s"),
        (Vitals(state="S", said="RPC error"), 0, "silent", "its connection broke"),
    ],
)
def test_each_way_to_go_has_a_cause_and_a_sentence(vitals: Vitals, silent_s: float, cause: str, words: str) -> None:
    error = lost(vitals, silent_s)
    assert (error.cause, error.rank, error.node, error.pid, error.phase) == (cause, 1, "b", 7, "fit")
    assert words in str(error)
    assert "in the phase 'fit'" in str(error)


def test_the_last_lines_of_the_log_and_the_memory_are_told() -> None:
    error = lost(Vitals(log=("one", "two")))
    assert str(error).endswith("The last lines of its log:\n  one\n  two")
    assert "300 MiB of memory when last heard" in str(error)


def test_the_error_and_its_event_say_the_same_and_survive_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(lost(Vitals(log=SEGFAULT))))
    event = loss_event(error)
    assert (event.worker, event.node, event.pid, event.phase) == (1, "b", 7, "fit")
    assert (event.cause, event.signal, event.exit_code, event.log) == ("crashed", "SIGSEGV", None, SEGFAULT)
    assert event.reason == str(error)


def test_a_stalled_worker_is_told_with_how_long_and_what_it_could_have_taken() -> None:
    error = stalled_error("worker 1", 1, "b", 7, Vitals(), replace(BUSY, idle_s=75), 60)
    assert error.cause == "stalled"
    assert "no progress in the phase 'fit' for 75 s, where 60 s" in str(error)


# A real process.


@pytest.fixture
def sleeper() -> Iterator[tuple[Any, WorkerPlace]]:
    program = "import sys, time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        yield process, replace(own_place("here"), pid=process.pid, started=started)
        process.kill()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the kernel has no /proc: run on Linux")


@needs_proc
def test_a_process_is_seen_as_it_sleeps_is_stopped_and_is_gone(sleeper: tuple[Any, WorkerPlace]) -> None:
    process, place = sleeper
    while look_at(place).state != "S":
        time.sleep(0.01)
    assert (look_at(place).busy, look_at(place).gone) == (False, False)
    process.send_signal(signal.SIGSTOP)
    while look_at(place).state != "T":
        time.sleep(0.01)
    assert not look_at(place).gone
    # A stopped process can still be ended.
    assert end_process(place)
    process.wait()
    assert look_at(place).gone
    assert not end_process(place)


@needs_proc
def test_another_process_with_the_same_number_is_left_alone(sleeper: tuple[Any, WorkerPlace]) -> None:
    process, place = sleeper
    other = replace(place, started=place.started + 1)
    assert look_at(other).gone
    assert not end_process(other)
    assert process.poll() is None


@needs_proc
def test_this_process_is_busy_where_it_computes() -> None:
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            assert look_at(WorkerPlace(process.pid, "here")).busy
        finally:
            process.kill()


def test_last_lines_leave_out_what_is_empty_and_survive_a_missing_file(tmp_path: Path) -> None:
    log = tmp_path / "worker.err"
    log.write_text(":job_id:01\n:actor_name:A\n" + "".join(f"line {number}\n\n" for number in range(40)))
    assert last_lines(str(log), 2) == ("line 38", "line 39")
    log.write_text("before\nFatal Python error: Aborted\n" + "".join(f"frame {number}\n" for number in range(40)))
    assert last_lines(str(log), 2) == ("Fatal Python error: Aborted", "frame 0")
    assert last_lines(str(tmp_path / "none")) == last_lines("") == ()


def test_a_pulse_says_the_phase_how_far_and_how_long_ago_the_last_sign_was() -> None:
    now = [0.0]
    meter = PulseMeter(lambda: now[0])
    now[0] = 2.0
    assert (meter.pulse().phase, meter.pulse().idle_s) == ("", 2.0)
    meter.hear(Progress(worker=0, phase="ingest", done=5, total=9))
    now[0] = 3.0
    pulse = meter.pulse()
    assert (pulse.phase, pulse.done, pulse.idle_s) == ("ingest", 5, 1.0)
    assert pulse.memory > 2**20
    assert pulse.cpu_s > 0
    meter.hear(MetricsReported(round=0, metrics={}))
    assert (meter.pulse().phase, meter.pulse().idle_s) == ("ingest", 0.0)
    meter.begin()
    assert meter.pulse().phase == ""
    assert own_place("here").pid == os.getpid()


@pytest.mark.parametrize(
    ("group", "machine", "found"),
    [("oom_kill 1", 8, "group"), ("oom_kill 0", 8, ""), (None, 8, "machine"), (None, 7, "")],
    ids=["its own group", "somebody else", "no group that counts", "nobody"],
)
def test_a_worker_is_not_said_to_be_out_of_memory_because_another_process_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, machine: int, found: str
) -> None:
    if group is not None:
        (tmp_path / "memory.events").write_text(f"low 0\n{group}\n")
    counter = vitals._counter
    monkeypatch.setattr(vitals, "_counter", lambda path: machine if path == Path("/proc/vmstat") else counter(path))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    place = WorkerPlace(process.pid, "here", 1, "", str(tmp_path), (-1 if group is None else 0, 7))
    assert look_at(place).oom_kill == found

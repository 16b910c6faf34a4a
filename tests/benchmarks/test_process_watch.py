from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

import pytest

from benchmarks.process_watch import MARKER, ProcessWatch

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

SLEEP = "import time; time.sleep(60)"
HOLD_64_MB = f"held = b'x' * 2**26; {SLEEP}"
# The parent ends at once, so that its child has another parent and is in a session of its own: a daemon.
DAEMON = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
# The child's environment is empty, as that of a process that overwrote it.
UNMARKED_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}], env={{}})"


def start(code: str, run: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARKER: run})


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not come true in 30 s"
        time.sleep(0.05)


def test_a_daemon_that_outlives_its_parent_belongs_to_the_run_and_is_killed_at_its_end() -> None:
    run = uuid.uuid4().hex
    with ProcessWatch(run) as watch:
        assert start(DAEMON, run).wait() == 0
        wait_until(lambda: len(watch.alive()) == 1)
    assert watch.alive() == set()


def test_a_child_without_the_marker_belongs_to_the_run_of_its_parent_even_after_the_parent_died() -> None:
    run = uuid.uuid4().hex
    with ProcessWatch(run) as watch:
        parent = start(UNMARKED_CHILD, run)
        wait_until(lambda: len(watch.alive()) == 2)
        parent.kill()
        parent.wait()
        assert len(watch.alive()) == 1
    assert watch.alive() == set()


def test_processes_of_another_run_are_neither_counted_nor_killed() -> None:
    other = start(SLEEP, uuid.uuid4().hex)
    try:
        with ProcessWatch(uuid.uuid4().hex) as watch:
            assert other.pid not in watch.alive()
        assert other.poll() is None
        assert watch.peak_bytes == 0
    finally:
        other.kill()
        other.wait()


def test_memory_is_summed_over_the_processes_of_the_run() -> None:
    run = uuid.uuid4().hex
    with ProcessWatch(run, interval=0.05) as watch:
        holders = [start(HOLD_64_MB, run) for _ in range(2)]
        wait_until(lambda: watch.peak_bytes > 2 * 2**26)
    for holder in holders:
        holder.wait()
    assert watch.peak_bytes < 2 * 2**26 + 2 * 2**26

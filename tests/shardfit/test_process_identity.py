"""Whether a process of this machine has ended: never said of one that lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shardfit.process_identity import has_ended, started_at, this_machine_now

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")


def test_this_process_has_not_ended_and_its_number_at_another_time_has() -> None:
    pid, machine = os.getpid(), this_machine_now()
    assert not has_ended(machine, pid, started_at(pid))
    assert has_ended(machine, pid, started_at(pid) - 1)
    assert not has_ended("elsewhere", pid, started_at(pid) - 1)
    assert not has_ended("", pid, started_at(pid) - 1)


def test_a_process_has_ended_as_soon_as_it_has_whether_or_not_its_parent_has_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = started_at(child.pid)
    assert not has_ended(this_machine_now(), child.pid, started)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(this_machine_now(), child.pid, started)
    child.communicate()
    assert has_ended(this_machine_now(), child.pid, started)


def test_a_process_that_the_machine_hides_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, read = this_machine_now(), Path.read_text

    def hidden(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "stat":
            raise FileNotFoundError(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not has_ended(machine, os.getpid(), 1)
    assert has_ended(machine, 2**31 - 1, 1)


@pytest.mark.parametrize("pid", [-1, 0, 2**70])
def test_what_is_no_process_is_not_asked_for(pid: int) -> None:
    assert not has_ended(this_machine_now(), pid, 1)

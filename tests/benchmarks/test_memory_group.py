"""The hard limit of memory that benchmarks and tests run under."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.memory_group import memory_group, read_size, why_impossible

# With those of lost workers in one process, they need not wait for them.
pytestmark = [pytest.mark.kills, pytest.mark.xdist_group("ray")]

WHY = why_impossible()
needs_groups = pytest.mark.skipif(WHY is not None, reason=str(WHY))


@needs_groups
def test_who_needs_more_than_the_limit_is_killed_and_who_does_not_is_let_be() -> None:
    with memory_group(64 * 2**20) as group:
        greedy = group.start([sys.executable, "-c", "x = b'1' * 200_000_000"])
        assert greedy.wait(60) == -9
        assert group.kills == 1
        assert group.peak > 32 * 2**20
        modest = group.start([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
        assert modest.communicate(timeout=60)[0] == "1\n"
        assert group.path.is_dir()
    assert not group.path.exists()


@needs_groups
def test_nothing_is_left_running() -> None:
    with memory_group(64 * 2**20) as group:
        sleeper = group.start(["sleep", "100"])
    assert sleeper.wait(10) == -9


@pytest.mark.parametrize(("text", "size"), [("1G", 2**30), ("1.5m", 3 * 2**19), ("1000", 1000)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert read_size(text) == size

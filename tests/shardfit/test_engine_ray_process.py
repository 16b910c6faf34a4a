"""Programs of their own that use the Ray engine: what they find, what they start, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shardfit.engines.machine import process_exists
from shardfit.testing.ray_cluster import ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HEADER = """
import os
import sys
import time

from shardfit.engines import current_resources, find_cluster, make_engine
from shardfit.scaling import WorkerLayout, WorkerSlot


def layout_of(node, workers):
    return WorkerLayout("ray", tuple(WorkerSlot(rank, node, 1) for rank in range(workers)), ("A test asks for it.",))
"""


def start(body: str, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", HEADER + body],
        env={**inherited, "RAY_TMPDIR": "/nowhere", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(body: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with start(body, environ or {}) as driver:
        output, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    return output.splitlines()


def test_looking_for_a_cluster_where_there_is_none_does_not_import_ray() -> None:
    assert run("print(current_resources().engine, 'ray' in sys.modules)") == ["inline False"]


CUSTOM_LOSS = """
class CustomLoss:
    def __call__(self, value):
        return value * 10


def apply(context, loss):
    return loss(context.rank)


(node,) = current_resources().nodes
print(node.cpus)
with make_engine("ray").start(layout_of(node.name, 2)) as group:
    print(group.run(apply, [(CustomLoss(),)] * 2, lambda event: None))
"""


def test_a_cluster_is_joined_with_its_token_and_workers_get_functions_of_the_program_itself() -> None:
    token = {"RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    with ray_cluster(cpus=2, environ={"RAY_AUTH_MODE": "token", **token}) as address:
        assert run(CUSTOM_LOSS, {"RAY_ADDRESS": address, **token}) == ["2.0", "[0, 10]"]
        assert run("print(find_cluster(os.environ))", {"RAY_ADDRESS": address}) == [address]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Ray's sockets lie in it, and their paths may have 107 characters: too few for pytest's folders.
    with tempfile.TemporaryDirectory(prefix="sf", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


LOCAL = """
def wait(context):
    context.progress("fit", 0, 1)
    while True:
        time.sleep(0.1)


def on_event(event):
    print("working", os.getpid(), flush=True)


with make_engine("ray").start(layout_of("local", 2)) as group:
    print(group.run(lambda context: context.world_size, [()] * 2, lambda event: None))
    print(current_resources().engine, flush=True)
    if os.environ.get("WAIT"):
        group.run(wait, [()] * 2, on_event)
"""


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = dict(tuple(map(int, line.split())) for line in listed.splitlines()[1:])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    # Where nobody waits for orphans, they stay as zombies.
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids if process_exists(pid)}
    return [pid for pid, stat in states.items() if stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"]


def test_a_local_ray_is_started_for_several_workers_and_ends_with_the_program(folder: Path) -> None:
    with start(LOCAL, {"RAY_TMPDIR": str(folder)}) as driver:
        output, errors = driver.communicate(timeout=120)
    # What this process started for itself is not a cluster that was found.
    assert output.splitlines() == ["[2, 2]", "inline"], errors
    assert not [line for line in processes() if str(folder) in line]


def processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


# Killed outright, too: the guard of the local Ray outlives the program by a moment.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_program_leaves_no_process_behind(folder: Path, number: signal.Signals) -> None:
    with start(LOCAL, {"RAY_TMPDIR": str(folder), "WAIT": "yes"}) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "[2, 2]\n"
        assert driver.stdout.readline() == "inline\n"
        assert driver.stdout.readline().startswith("working")
        started = descendants(driver.pid)
        assert len(started) > 4
        driver.send_signal(number)
        driver.communicate(timeout=60)
    assert driver.returncode != 0
    deadline = time.monotonic() + 60
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(started) == []

"""Processes that put to a real server and are killed with signal 9 at each call of the service, while others read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.object_servers import Server
from shardfit.errors import ArtifactNotFoundError
from shardfit_stages.layout import FENCES
from shardfit_stages.store import ObjectArtifactStore

ROOT = Path(__file__).parents[2]
FILES = {"a": b"a" * 100_000, "deep/b": b"b" * 9_000_000, "c": b""}

# One process that has imported everything forks the writers: each kills itself just before its call number `step`.
WRITERS = """
import json, os, signal, sys
from shardfit_stages.store import ObjectArtifactStore
import obstore.store

url, options = json.loads(sys.stdin.readline())
files = {"a": b"a" * 100_000, "deep/b": b"b" * 9_000_000, "c": b""}
CALLS = ("put", "get", "head", "list", "copy", "delete")

def killed(step):
    calls = 0
    def counted(self, name):
        nonlocal calls
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
    for name in CALLS:
        original = getattr(obstore.store.S3Store, name)
        def call(self, *arguments, original=original, name=name, **options):
            counted(self, name)
            return original(self, *arguments, **options)
        setattr(obstore.store.S3Store, name, call)
    ObjectArtifactStore(url, options).put(f"model/{step}", files)
    os._exit(0)

for step in range(100):
    pid = os.fork()
    if pid == 0:
        killed(step)
    _, status = os.waitpid(pid, 0)
    print(step, status, flush=True)
    if status == 0:
        break
"""


@pytest.mark.parametrize("served", ["rclone_server", "moto_server"])
def test_a_writer_killed_at_any_call_is_seen_whole_or_not_at_all(
    served: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(served)
    store = ObjectArtifactStore(f"{server.url}/killed", {**server.options, "patience_s": 20})
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(poll, store, ended, tmp_path)
        try:
            steps = run_writers(server, store.url)
        finally:
            ended.set()
        reading.result()
    assert steps > 10
    published = set(store.list())
    assert f"model/{steps}" in published
    # The dead are known at once on their own machine, and so is what they have left.
    assert store.collect_garbage() > 0
    assert store.collect_garbage() == 0
    assert set(store.list()) == published
    for step in range(steps):
        store.put(f"model/{step}", FILES)
    assert store.collect_garbage() == 0
    keys = [one.key for one in store.service.list() if not one.key.startswith(FENCES)]
    assert len(keys) == (steps + 1) * (len(FILES) + 1)
    assert not [key for key in keys if key.startswith(".")]


def run_writers(server: Server, url: str) -> int:
    """Return the number of the first call at which there was none left to be killed at."""
    client = "AzureStore" if url.startswith("az") else "S3Store"
    script = WRITERS.replace("S3Store", client)
    process = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([url, {**server.options, "patience_s": 20}]).encode(),
        capture_output=True,
        timeout=200,
        cwd=ROOT,
    )
    told = [line.split() for line in process.stdout.decode().splitlines()]
    assert [status for _, status in told] == ["9"] * (len(told) - 1) + ["0"], process.stderr.decode()[-2000:]
    return int(told[-1][0])


def poll(store: ObjectArtifactStore, ended: threading.Event, folder: Path) -> None:
    """Read whatever is there, again and again, each time another of the artifacts."""
    rounds = 0
    while not ended.wait(0.2):
        there = list(store.list())
        rounds += 1
        with suppress(ArtifactNotFoundError, IndexError):
            target = folder / f"{rounds}"
            store.get(there[rounds % len(there) if there else 0], target)
            assert {name: (target / name).read_bytes() for name in FILES} == FILES

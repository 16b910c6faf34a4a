"""A Ray cluster of one node that is there before the program that uses it, as on a real cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 90.0
_STOP_SECONDS = 10.0
# Ray would wait for half a minute for idle workers before it ends; whoever runs the tests does not wait so long.
_NO_DRAIN = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}


@contextmanager
def ray_cluster(cpus: int, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a cluster beside this process; yields its address, and leaves no process and no file behind.

    Args:
        cpus: CPUs that the node claims to have; may be more than the machine has.
        environ: Environment variables for the cluster, on top of this process's.
    """
    # Short, because sockets lie in it and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="sf", dir="/tmp"))
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0"]
    command += [f"--num-cpus={cpus}", "--num-gpus=0", f"--temp-dir={folder}", "--include-dashboard=false"]
    command += ["--disable-usage-stats", "--object-store-memory=200000000"]
    log = folder / "start.log"
    with log.open("wb") as output:
        node = subprocess.Popen(  # noqa: S603
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **_NO_DRAIN, **(environ or {})},
        )
    try:
        yield _wait_for_address(folder, node, log)
    finally:
        _stop(node)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_address(folder: Path, node: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and node.poll() is None:
        # Said once everything runs; the address file is there before.
        if "Ray runtime started" in log.read_text():
            return (folder / "ray_current_cluster").read_text().strip()
        time.sleep(0.05)
    raise RuntimeError(f"the Ray cluster did not start:\n{log.read_text()}")


def _stop(node: subprocess.Popen[bytes]) -> None:
    # Ray's own command stops every cluster of the machine; this process stops those that it started.
    node.terminate()
    try:
        node.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

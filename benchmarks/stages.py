"""An artifact put to a server on loopback, beside `rclone copy` of the same files: `python -m benchmarks.stages`.

Both are measured as processes, from start to end, in turn, with the files in the page cache: wall time, and the peak
of the memory that is theirs. Both hash what they send.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.object_servers import BUCKET, KEY, KEY_ID, Server, rclone, rclone_binary

_BLOCK = 2**22

PUT = """
import json, sys
from pathlib import Path
from shardfit_stages.store import ObjectArtifactStore

url, options, folder = json.loads(sys.stdin.readline())
files = {path.name: path for path in Path(folder).iterdir()}
ObjectArtifactStore(url, options).put("model/benchmark", files)
"""


def write_files(folder: Path, total_bytes: int) -> None:
    """Write one large file and four smaller ones of random bytes."""
    folder.mkdir()
    for name, share in {"large.bin": 0.6, **{f"part-{i}.bin": 0.1 for i in range(4)}}.items():
        with (folder / name).open("wb") as file:
            for _ in range(round(total_bytes * share / _BLOCK)):
                file.write(os.urandom(_BLOCK))


def measured(command: Sequence[str], environ: Mapping[str, str], text: str = "") -> tuple[float, int]:
    """Return a process's wall time in seconds and its peak memory in bytes."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environ})
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def rclone_environment(server: Server) -> dict[str, str]:
    """Return what configures `rclone copy` to the server, as its documentation advises for its own."""
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Rclone",
        "ENDPOINT": f"http://127.0.0.1:{server.port}",
        "ACCESS_KEY_ID": KEY_ID,
        "SECRET_ACCESS_KEY": KEY,
        "USE_MULTIPART_UPLOADS": "true",
    }
    return {"RCLONE_CONFIG": os.devnull, **{f"RCLONE_CONFIG_LOOPBACK_{name}": value for name, value in remote.items()}}


def compare(folder: Path, total_bytes: int, repeats: int) -> list[tuple[str, float, int]]:
    """Return who, seconds and peak bytes, of each repeat."""
    write_files(folder / "files", total_bytes)
    found = []
    for number in range(repeats):
        # A server and a folder of its own for each: rclone remembers what it has served.
        with rclone(folder / f"served-{number}-copy") as server:
            copy = [rclone_binary(), "copy", os.fspath(folder / "files"), f"loopback:{BUCKET}/copied"]
            found.append(_told("rclone copy", *measured(copy, rclone_environment(server))))
        shutil.rmtree(folder / f"served-{number}-copy")
        with rclone(folder / f"served-{number}-put") as server:
            text = json.dumps([server.url, server.options, os.fspath(folder / "files")])
            found.append(_told("shardfit put", *measured([sys.executable, "-c", PUT], {}, text)))
        shutil.rmtree(folder / f"served-{number}-put")
    return found


def _told(who: str, seconds: float, peak: int) -> tuple[str, float, int]:
    print(f"{who:14} {seconds:.1f} s, peak {peak / 1e6:.0f} MB", flush=True)
    return who, seconds, peak


def main() -> None:
    """Print a table; exits with 1 where the throughput or the memory misses what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    total = round(options.gigabytes * 1e9)
    with tempfile.TemporaryDirectory(prefix="shardfit-stages-") as folder:
        found = compare(Path(folder), total, options.repeats)
    medians = {}
    for who in ("rclone copy", "shardfit put"):
        seconds = [one[1] for one in found if one[0] == who]
        peak = max(one[2] for one in found if one[0] == who)
        medians[who] = (statistics.median(seconds), peak)
        every = ", ".join(f"{one:.1f}" for one in seconds)
        print(f"{who:14} {total / 1e6 / medians[who][0]:7.0f} MB/s  median of {every} s  peak {peak / 1e6:.0f} MB")
    ratio, peak = medians["rclone copy"][0] / medians["shardfit put"][0], medians["shardfit put"][1]
    kept = ratio >= 0.8 and peak < 300e6
    print(f"{ratio:.2f} x the throughput of rclone copy (promised: 0.8), {peak / 1e6:.0f} MB (promised: below 300)")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()

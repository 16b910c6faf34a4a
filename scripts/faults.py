"""Faults for the cluster of `scripts/cluster.py`, each with its remedy: by hand, for tests, and for the campaign.

    sudo python scripts/cluster.py up
    sudo python scripts/faults.py lose 3        # every process of host 3 is killed
    sudo python scripts/faults.py restore 3     # its node joins again
    sudo python scripts/faults.py freeze 2      # and `thaw`
    sudo python scripts/faults.py cut 2         # its network, and `heal`
    sudo python scripts/faults.py slow 2 200    # milliseconds for each packet; `heal` ends it

Needs Linux, root, `ip` and `tc` (Debian's package iproute2).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.cluster import STATE, HostCluster, pids_of, start_node, wait_until_joined


def kill(pid: int) -> None:
    """Kill one process, as the kernel does when memory runs out."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def freeze_process(pid: int) -> None:
    """Stop one process: it is there, and does nothing."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def thaw_process(pid: int) -> None:
    """Let a process that was stopped go on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def lose(cluster: HostCluster, host: int) -> None:
    """Kill every process of a host at once, as a loss of power does."""
    cluster.lose(host)


def restore(cluster: HostCluster, host: int) -> subprocess.Popen[bytes]:
    """Start the node of a host again that was lost, and wait until it has joined."""
    node = start_node(cluster, host)
    wait_until_joined(cluster, host, node)
    return node


def freeze(cluster: HostCluster, host: int) -> None:
    """Stop every process of a host, as a machine that hangs does; connections to it stay open."""
    for pid in pids_of(cluster.namespace(host)):
        freeze_process(pid)


def thaw(cluster: HostCluster, host: int) -> None:
    """Let a host that was stopped go on."""
    for pid in pids_of(cluster.namespace(host)):
        thaw_process(pid)


def cut(cluster: HostCluster, host: int) -> None:
    """Take a host's link down: nothing arrives there or comes from there, and nobody is told."""
    _ip(cluster, host, "link", "set", cluster.link(host), "down")


def slow(cluster: HostCluster, host: int, milliseconds: int) -> None:
    """Delay every packet that leaves a host."""
    command = ["tc", "-n", cluster.namespace(host), "qdisc", "replace", "dev", cluster.link(host), "root"]
    subprocess.run([*command, "netem", "delay", f"{milliseconds}ms"], check=True, capture_output=True)


def heal(cluster: HostCluster, host: int) -> None:
    """Undo `cut` and `slow`."""
    command = ["tc", "-n", cluster.namespace(host), "qdisc", "del", "dev", cluster.link(host), "root"]
    subprocess.run(command, check=False, capture_output=True)
    _ip(cluster, host, "link", "set", cluster.link(host), "up")
    with suppress(RuntimeError):
        _ip(cluster, host, "route", "add", "default", "dev", cluster.link(host))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of `size`, for example `2m`, on a folder while the context lasts.

    Args:
        folder: Made if it is not there.
        size: As `mount -o size=` takes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "shardfit-faults", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk that a folder is on; returns the file to be removed afterwards. Only for a `small_disk`."""
    file = folder / "filling"
    with suppress(OSError), file.open("wb", buffering=0) as output:
        while True:
            output.write(bytes(2**16))
    return file


def _ip(cluster: HostCluster, host: int, *arguments: str) -> None:
    done = subprocess.run(["ip", "-n", cluster.namespace(host), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    if not STATE.exists():
        sys.exit("No cluster is up: run `scripts/cluster.py up` first.")
    cluster = HostCluster(**json.loads(STATE.read_text()))
    known = {"lose": lose, "restore": restore, "freeze": freeze, "thaw": thaw, "cut": cut, "heal": heal}
    match list(arguments):
        case [name, host] if name in known and host.isdigit() and 1 <= int(host) <= cluster.hosts:
            known[name](cluster, int(host) - 1)
        case ["slow", host, milliseconds] if host.isdigit() and milliseconds.isdigit():
            slow(cluster, int(host) - 1, int(milliseconds))
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

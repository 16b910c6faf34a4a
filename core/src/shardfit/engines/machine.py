"""What this machine offers: CPUs, memory and GPUs, with the limits of its container taken into account."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from shardfit.scaling import Node

LOCAL_NODE = "local"
LOCAL_ADDRESS = "127.0.0.1"

_NVIDIA_SMI_SECONDS = 10
# Version 1 of the kernel's interface says "no limit" with a number near the largest page-aligned int64.
_NO_MEMORY_LIMIT = 1 << 60


def this_machine(environ: Mapping[str, str]) -> Node:
    """Return this machine as a node named `local`.

    Args:
        environ: Environment of the process; `CUDA_VISIBLE_DEVICES` limits the GPUs.
    """
    return Node(LOCAL_NODE, LOCAL_ADDRESS, cpus=float(usable_cpus()), gpus=float(usable_gpus(environ)), memory=memory())


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs that this process may use: its affinity and its container's quota, 1 or more.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A quota of 1.5 CPUs is 1 thread: a second one would be throttled half of the time, and all wait for the slowest.
    return max(1, math.floor(min(affinity, cpu_quota(root))))


def cpu_quota(root: Path = Path("/")) -> float:
    """Return the CPUs that control groups allow, infinity where nothing limits them."""
    quotas = [math.inf]
    for folder in control_groups(root, "cpu"):
        words = _words(folder / "cpu.max")
        if not words:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas)


def memory(root: Path = Path("/")) -> int:
    """Return the bytes that this machine or its container has, 0 where unknown."""
    limits = [int(words[0]) for words in _memory_limits(root) if words and words[0].isdigit()]
    known = [limit for limit in (_physical_memory(root), *limits) if 0 < limit < _NO_MEMORY_LIMIT]
    return min(known, default=0)


def usable_gpus(environ: Mapping[str, str]) -> int:
    """Return the NVIDIA GPUs that this process may use; 0 where there is no driver.

    Args:
        environ: Environment of the process; `CUDA_VISIBLE_DEVICES` limits the GPUs.
    """
    present = _present_gpus()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if not present or visible is None:
        return present
    names = [name.strip() for name in visible.split(",")]
    # CUDA stops at the first name that is no device.
    refused = [i for i, name in enumerate(names) if name in ("", "-1")]
    return min(present, refused[0] if refused else len(names))


def process_exists(pid: int) -> bool:
    """Return whether a process of this machine is there, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _present_gpus() -> int:
    if command := shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run(  # noqa: S603
                [command, "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
            )
            return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        except (OSError, subprocess.SubprocessError):
            return 0  # The tool is there and the driver is not.
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _physical_memory(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    if root == Path("/") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _memory_limits(root: Path) -> Iterator[list[str]]:
    for folder in control_groups(root, "memory"):
        yield _words(folder / "memory.max")
        yield _words(folder / "memory.limit_in_bytes")


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of every control group that this process is in, from its own up to the topmost."""
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Inside a container the path is often the host's, and only the topmost folder exists.
        top = mount / controller if controllers else mount
        group = top / path.lstrip("/")
        yield group
        yield from (parent for parent in group.parents if parent == top or top in parent.parents)


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

"""Runs a command under a hard limit of memory: a control group, which counts what processes really use.

    sudo python scripts/memory_group.py 1G -- python -m examples.flights

Page cache counts, too, but is given back before the limit hurts. Where the limit is reached all the same, the kernel
kills a process of the group. Needs Linux and root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_GROUPS = Path("/sys/fs/cgroup")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_STOP_SECONDS = 10.0
# The shell joins the group before it becomes the command, so that nothing of the command is outside.
_JOIN = 'echo $$ > "$0" && exec "$@"'


@dataclass(frozen=True)
class MemoryGroup:
    """A control group with a limit.

    Args:
        path: Its folder.
        unified: Whether it is of the second version of the kernel's interface.
        started: What was started in it.
    """

    path: Path
    unified: bool
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in the group.

        Args:
            command: Program and arguments.
            **options: As for `subprocess.Popen`; its output is text.
        """
        procs = os.fspath(self.path / "cgroup.procs")
        self.started.append(subprocess.Popen(["/bin/sh", "-c", _JOIN, procs, *command], text=True, **options))
        return self.started[-1]

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed because of the limit."""
        file = self.path / ("memory.events" if self.unified else "memory.oom_control")
        counts = dict(line.split() for line in file.read_text().splitlines())
        return int(counts.get("oom_kill", 0))

    @property
    def peak(self) -> int:
        """Most bytes that the group has had, page cache included; 0 where the kernel does not say."""
        file = self.path / ("memory.peak" if self.unified else "memory.max_usage_in_bytes")
        return int(file.read_text()) if file.exists() else 0

    def stop(self) -> None:
        """Kill every process of the group and wait until they are gone."""
        for process in self.started:
            # It may not have joined yet.
            process.kill()
            process.wait()
        deadline = time.monotonic() + _STOP_SECONDS
        while (pids := (self.path / "cgroup.procs").read_text().split()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)


def why_impossible() -> str | None:
    """Return why this machine cannot limit memory so and what would change that, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "control groups need Linux and root: run as root"
    try:
        with memory_group(2**28):
            return None
    except OSError as error:
        return f"no control group can be made here ({error}): use a privileged container"


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a control group; it and its processes are gone afterwards.

    Args:
        limit: Most bytes of its processes together. There is no swap beyond it.

    Raises:
        OSError: This machine does not let it be made.
    """
    unified = not (_GROUPS / "memory").is_dir()
    path = (_GROUPS if unified else _GROUPS / "memory") / f"shardfit-{secrets.token_hex(4)}"
    path.mkdir()
    group = MemoryGroup(path, unified)
    try:
        _limit(group, limit)
        yield group
    finally:
        group.stop()
        path.rmdir()


def _limit(group: MemoryGroup, limit: int) -> None:
    names = ("memory.max", "memory.swap.max") if group.unified else ("memory.limit_in_bytes", "memory.swappiness")
    (group.path / names[0]).write_text(str(limit))
    if (swap := group.path / names[1]).exists():
        swap.write_text("0")


def run(command: Sequence[str], limit: int, environ: Mapping[str, str] | None = None) -> int:
    """Run a command under a limit, say on stderr what became of it, and return its exit status.

    Args:
        command: Program and arguments.
        limit: Most bytes of its processes together.
        environ: Environment variables on top of this process's.
    """
    with memory_group(limit) as group:
        status = group.start(command, env={**os.environ, **(environ or {})}).wait()
        print(f"exit status {status}, peak {group.peak / 2**20:,.0f} MiB, killed {group.kills}", file=sys.stderr)
    return status


def read_size(text: str) -> int:
    """Return a number of bytes written as `1G`, `512M` or `1000`.

    Raises:
        ValueError: It is no number.
    """
    unit = _UNITS.get(text[-1:].upper())
    return int(float(text[:-1]) * unit) if unit else int(text)


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    if (reason := why_impossible()) is not None:
        sys.exit(f"Memory cannot be limited here; {reason}.")
    match list(arguments):
        case [limit, "--", *command] if command:
            return run(command, read_size(limit))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A small process that ends a local Ray with the driver that started it, even where the driver is killed outright.

It holds the end of a pipe whose other end the driver has: when the driver is gone, for whatever reason, the pipe is
closed, and every process that has a file of Ray's session open is ended. It imports nothing of this package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_ENDING_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_pipes: list[int] = []


def watch_local_ray(session: Path) -> None:
    """Start the guard of a local Ray. Called by the driver that has started it; Linux only, where `/proc` tells.

    Args:
        session: Folder of Ray's session, which its processes have files open in.
    """
    if not sys.platform.startswith("linux"):
        return
    reading, writing = os.pipe()
    # Without site packages it starts in some milliseconds and takes 8 MB. Ctrl-C in a terminal is not for it.
    command = [sys.executable, "-I", "-S", __file__, str(session)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(command, stdin=reading, start_new_session=True, **quiet)  # type: ignore[call-overload]  # noqa: S603
    os.close(reading)
    _pipes.append(writing)


def processes_of(session: Path) -> list[int]:
    """Return the other processes of this machine that have a file below `session` open."""
    return [pid for pid in _pids() if pid != os.getpid() and _has_open(pid, session)]


def main(session: Path) -> None:
    """Wait until the driver is gone, then end what is left of its Ray."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + _ENDING_SECONDS
    while (pids := processes_of(session)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(_LOOK_SECONDS)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _has_open(pid: int, session: Path) -> bool:
    try:
        files = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(session in path.parents for path in files)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

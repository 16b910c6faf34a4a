"""Where a machine has room for what need not last: never in memory if there is a disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_RAM_DISKS = {"tmpfs", "ramfs"}


def scratch_folder() -> Path:
    """Return this machine's folder for temporary files; `/var/tmp` where the usual one is held in memory."""
    usual, other = Path(tempfile.gettempdir()), Path("/var") / "tmp"
    return other if is_ram_disk(usual) and other.is_dir() and not is_ram_disk(other) else usual


def is_ram_disk(folder: Path) -> bool:
    """Return whether what is written to a folder takes memory, as far as can be seen."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    above = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, default=(0, ""))[1] in _RAM_DISKS


def own_path(name: str) -> Path:
    """Return the path of `own_folder`, which need not be there."""
    return scratch_folder() / f"{name}-{os.getuid()}"


def own_folder(name: str) -> Path:
    """Return this user's folder of a name in the scratch folder, which nobody else can look into; made if need be.

    Args:
        name: What it is for; the user's number is appended.

    Raises:
        OSError: It cannot be made, or somebody else has put something in its place.
    """
    folder = own_path(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{os.fspath(folder)!r} is another user's, a link, or open to others")
    return folder

"""Bringing the files of an artifact into somebody's folder: all of them, or the folder stays as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardfit.artifacts import Manifest
from shardfit.errors import ArtifactError


@contextmanager
def arriving_in(directory: Path) -> Iterator[Path]:
    """Yield an empty folder to bring files into before `move_files`; afterwards it is gone.

    Args:
        directory: Where they are to be in the end; made if need be, and removed again if bringing them there fails.
    """
    existed = directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    # Beside their targets, so that moving them there cannot run out of space.
    arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=directory))
    try:
        yield arriving
    except BaseException:
        shutil.rmtree(arriving if existed else directory, ignore_errors=True)
        raise
    shutil.rmtree(arriving)


def move_files(manifest: Manifest, arriving: Path, directory: Path) -> None:
    """Move the files of an artifact from `arriving` to `directory`.

    Raises:
        ArtifactError: A link, or a folder where a file should be, is in the way; nothing is moved.
    """
    targets = [directory / stored.name for stored in manifest.files]
    for target in targets:
        for parent in [target, *target.parents][: len(target.parts) - len(directory.parts)]:
            if parent.is_symlink() or (parent.exists() and parent.is_dir() == (parent == target)):
                asked = f"getting {manifest.artifact!r} into {os.fspath(directory)!r}"
                raise ArtifactError(asked, f"{os.fspath(parent)!r} is in the way", "Choose an empty folder.")
    for stored, target in zip(manifest.files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        (arriving / stored.name).replace(target)

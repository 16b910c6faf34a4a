"""The folder that a loop leaves its model in, and what becomes of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardfit.artifacts import check_file_names
from shardfit.errors import ArtifactError, InvalidArgumentError


@contextmanager
def model_folder(rank: int) -> Iterator[Path]:
    """Make an empty folder on this machine, and remove it with all that is in it when the context ends.

    Raises:
        ArtifactError: It cannot be made; says where and why.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"shardfit-model-{rank}-"))
    except OSError as error:
        raise ArtifactError(
            "making a folder for the model",
            f"{error.strerror or error}, in {tempfile.gettempdir() if tempfile.tempdir else 'the temporary folder'!r}",
            "Set TMPDIR to a folder that workers can write to.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, by their names relative to it, with `/` between folders.

    Raises:
        InvalidArgumentError: A name cannot be published, or a link leads out of the folder.
        ArtifactError: The folder or a file is gone, or cannot be read.
    """
    found: dict[str, bytes] = {}
    root = folder.resolve()
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InvalidArgumentError(
                    f"publishing the link {path.name!r} of the model directory",
                    f"it leads to {str(path.resolve())!r}",
                    "Copy the file into the directory.",
                )
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
        if not folder.is_dir():
            raise ArtifactError("reading the model directory", f"{str(folder)!r} is gone", "Leave the folder itself.")
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError("reading the model directory", f"{error.strerror or error}: {error.filename!r}") from error
    check_file_names(list(found))
    return found

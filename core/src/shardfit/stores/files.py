"""Files and folders under locks: durable writes, checked copies that follow no link, staging folders."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from shardfit.artifacts import StoredFile
from shardfit.errors import ArtifactCorruptError, ArtifactError, InvalidArgumentError

_BLOCK = 2**20


@contextmanager
def told_as_artifact_error(asked: str) -> Iterator[None]:
    """Turn what the operating system raises into errors that say what was being done."""
    try:
        yield
    except ArtifactError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidArgumentError(asked, "a name is too long for the file system", "Shorten it.") from error
        where = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, (str, Path)) else ""
        raise ArtifactError(asked, f"{error.strerror or error}{where}", "Is it full, gone or not writable?") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is made if need be; threads exclude each other too."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder below `parent` that no collector removes meanwhile; what is left of it goes afterwards."""
    while True:
        folder = parent / uuid.uuid4().hex
        folder.mkdir(parents=True)
        # A collector may come between making it and locking it; then another one is made.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                break
            os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_unlocked(folder: Path) -> int:
    """Remove a staging folder unless its writer still holds it; return how many files went."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files = sum(path.is_symlink() or not path.is_dir() for path in folder.rglob("*"))
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)
    return files


def write_durably(path: Path, content: bytes | Path) -> tuple[int, str]:
    """Write a new file and its way to the disk; return its size in bytes and its SHA-256.

    Args:
        path: Must not exist; folders above it are made.
        content: The content, or the path of a file that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sha, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for block in _blocks(content):
            file.write(block)
            sha.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return size, sha.hexdigest()


def sync_names(folder: Path) -> None:
    """Bring the names in one folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folder: Path) -> None:
    """Bring the names in a folder and in all below it to the disk."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_names(path)


def copy_checked(folder: Path, stored: StoredFile, target: BinaryIO) -> None:
    """Copy one stored file to `target`.

    Raises:
        FileNotFoundError: It is not there.
        ArtifactCorruptError: It is no plain file below `folder`, or its size or digest differ.
    """
    asked = f"reading {stored.name!r} below {str(folder)!r}"
    with _open_below(folder, stored.name, asked) as file:
        size = os.fstat(file.fileno()).st_size
        if size != stored.size:
            raise ArtifactCorruptError(asked, f"found {size} bytes where {stored.size} were stored", "It is torn.")
        sha = hashlib.sha256()
        while block := file.read(_BLOCK):
            sha.update(block)
            target.write(block)
    if sha.hexdigest() != stored.sha256:
        raise ArtifactCorruptError(asked, "its digest is another", "It was altered; put the artifact again.")


def _blocks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _open_below(folder: Path, name: str, asked: str) -> BinaryIO:
    *parents, last = name.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for parent in parents:
            descriptor, outer = os.open(parent, flags | os.O_DIRECTORY, dir_fd=descriptor), descriptor
            os.close(outer)
        # A named pipe would block for ever without O_NONBLOCK; it means nothing to a plain file.
        opened = os.open(last, flags | os.O_NONBLOCK, dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ArtifactCorruptError(asked, "there is a link or a file in its way", "It was altered.") from error
        raise
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ArtifactCorruptError(asked, "it is no plain file", "It was altered.")
    return os.fdopen(opened, "rb")

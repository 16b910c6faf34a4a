"""A file that lies in memory, for a library that takes nothing but files."""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEAD_BYTES = 2**20
_EVERY_SECONDS = 0.002


class MemoryFile:
    """A file of a fixed size, open for writing.

    Args:
        descriptor: Of the file.
        path: It can be opened by.
        size: In bytes.

    Attributes:
        content: All of it; uint8, shape [size].
    """

    def __init__(self, descriptor: int, path: str, size: int) -> None:
        self.path = path
        self._room = mmap.mmap(descriptor, size)
        self._descriptor = descriptor
        self.content: npt.NDArray[np.uint8] = np.frombuffer(self._room, dtype=np.uint8)

    @contextmanager
    def given_back_as_it_is_read(self) -> Iterator[None]:
        """Let somebody else in this process read the file once, from its beginning to its end.

        Memory behind the place where it is read goes back to the system, so that what is read and what is made of it
        take as much as one of them. Its first MiB stays, for who looks what kind of file it is before. Only on Linux.
        """
        if not sys.platform.startswith("linux"):
            yield
            return
        done = threading.Event()
        follower = threading.Thread(target=self._follow, args=(done,), name="shardfit-memory-file", daemon=True)
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()

    def give_back(self, start: int, size: int) -> None:
        """Let the system have the memory of a part, which reads as zeros from then on. Only on Linux.

        Args:
            start: Its first byte; where a page begins.
            size: In bytes.
        """
        self._room.madvise(mmap.MADV_REMOVE, start, size)

    def _follow(self, done: threading.Event) -> None:
        given_back = HEAD_BYTES
        while not done.wait(_EVERY_SECONDS):
            read = self._place() // mmap.PAGESIZE * mmap.PAGESIZE
            if read > given_back:
                self.give_back(given_back, read - given_back)
                given_back = read

    def _place(self) -> int:
        """Return how far the file has been read, 0 where nobody does."""
        mine = Path("/proc/self/fd", str(self._descriptor)).readlink()
        place = 0
        for entry in Path("/proc/self/fd").iterdir():
            try:
                if entry.readlink() == mine:
                    # A kernel that does not say where a file is read begins with something else.
                    name, value = Path("/proc/self/fdinfo", entry.name).read_text().split()[:2]
                    place = max(place, int(value) if name == "pos:" else 0)
            except FileNotFoundError:
                continue  # It was closed meanwhile.
        return place


@contextmanager
def memory_file(size: int) -> Iterator[MemoryFile]:
    """Make a file of zeros, which is gone afterwards; in memory where the system is Linux.

    Args:
        size: In bytes, more than none.
    """
    # Of a name of its own, by which others in this process that have opened it are found.
    name = f"shardfit-{secrets.token_hex(8)}"
    if sys.platform.startswith("linux"):
        descriptor = os.memfd_create(name)
        try:
            os.ftruncate(descriptor, size)
            file = MemoryFile(descriptor, f"/proc/self/fd/{descriptor}", size)
            try:
                yield file
            finally:
                # An error may be kept, and with it all that holds the content.
                file.give_back(0, size)
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix=name) as file:
            file.truncate(size)
            yield MemoryFile(file.fileno(), file.name, size)

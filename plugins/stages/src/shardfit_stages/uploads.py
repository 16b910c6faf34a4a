"""Bringing the files of an artifact to the service: several at once, in parts, hashed on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from shardfit.artifacts import StoredFile
from shardfit.errors import ArtifactError
from shardfit_stages.layout import artifact_and_put, file_key
from shardfit_stages.progress import ProgressSink, UploadProgress
from shardfit_stages.service import BLOCK, ObjectService, StoredObject

_FILES_AT_ONCE = 3
_PARTS_AT_ONCE = 3


def content_blocks(content: bytes | Path) -> Iterator[bytes]:
    """Yield a file's content in blocks of 8 MiB, from memory or from disk."""
    if isinstance(content, bytes):
        view = memoryview(content)
        yield from (bytes(view[start : start + BLOCK]) for start in range(0, len(content), BLOCK))
        return
    with content.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            yield block


def described(name: str, content: bytes | Path) -> StoredFile:
    """Return a file's size and digest."""
    sha, size = hashlib.sha256(), 0
    for block in content_blocks(content):
        sha.update(block)
        size += len(block)
    return StoredFile(name, size, sha.hexdigest())


def content_size(content: bytes | Path) -> int:
    """Return the size in bytes that a file has now."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@dataclass(frozen=True)
class Uploader:
    """Sends the files of one put into its folder.

    What an interrupted put of the same artifact has left is not sent again: a file with the same size and digest is
    copied within the service and read back.

    Args:
        service: Takes them.
        artifact: What is put.
        put: Its folder.
        progress: Told how far each file is.
    """

    service: ObjectService
    artifact: str
    put: str
    progress: ProgressSink | None = None

    def upload(self, files: Mapping[str, bytes | Path], left: Sequence[StoredObject]) -> tuple[StoredFile, ...]:
        """Send all files and return what was sent, sorted by name.

        Args:
            files: Each is asked for once, in the order of the names.
            left: What lies below the artifact: of other puts.
        """
        stop = Event()
        with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="shardfit-upload") as pool:
            sending: list[Future[StoredFile]] = []
            try:
                for name in sorted(files):
                    sending.append(pool.submit(self._send, name, files[name], left, stop))
                    # No more contents than can be sent are asked for: each may be large and in memory.
                    if len(sending) >= _FILES_AT_ONCE:
                        sending[-_FILES_AT_ONCE].result()
                return tuple(future.result() for future in sending)
            except BaseException:
                stop.set()
                raise

    def _send(self, name: str, content: bytes | Path, left: Sequence[StoredObject], stop: Event) -> StoredFile:
        if stop.is_set():
            raise ArtifactError(f"putting {name!r}", "another file could not be put")
        size = content_size(content)
        if (found := self._copied(name, content, size, left)) is not None:
            self._tell(name, found.size, found.size)
            return found
        key = file_key(self.artifact, self.put, name)
        if size > BLOCK:
            return self._send_large(name, key, content, size, stop)
        whole = content if isinstance(content, bytes) else content.read_bytes()
        self.service.put(key, whole)
        self._tell(name, len(whole), len(whole))
        return StoredFile(name, len(whole), hashlib.sha256(whole).hexdigest())

    def _send_large(self, name: str, key: str, content: bytes | Path, size: int, stop: Event) -> StoredFile:
        sha, done = hashlib.sha256(), 0

        def blocks() -> Iterator[bytes]:
            nonlocal sha, done
            sha, done = hashlib.sha256(), 0
            for block in content_blocks(content):
                if stop.is_set():
                    raise ArtifactError(f"putting {name!r}", "another file could not be put")
                sha.update(block)
                done += len(block)
                yield block
                self._tell(name, done, size)

        self.service.upload(key, blocks, size, _PARTS_AT_ONCE)
        return StoredFile(name, done, sha.hexdigest())

    def _copied(self, name: str, content: bytes | Path, size: int, left: Sequence[StoredObject]) -> StoredFile | None:
        sources = [one for one in left if one.size == size and size and self._is_of_another_put(one.key, name)]
        if not sources:
            return None
        target, wanted = file_key(self.artifact, self.put, name), described(name, content)
        for source in sources:
            # It may be removed as garbage meanwhile, or the service may not copy what is so large: then it is sent.
            with suppress(ArtifactError):
                self.service.copy(source.key, target)
                if self._digest(target, wanted.size) == wanted.sha256:
                    return wanted
        return None

    def _is_of_another_put(self, key: str, name: str) -> bool:
        found = artifact_and_put(key)
        return (
            found is not None and found[0] == self.artifact and found[1] != self.put and key == file_key(*found, name)
        )

    def _digest(self, key: str, size: int) -> str:
        sha = hashlib.sha256()
        for block in self.service.blocks(key, size):
            sha.update(block)
        return sha.hexdigest() if self.service.size(key) == size else ""

    def _tell(self, name: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(UploadProgress(self.artifact, name, done, total))


__all__ = ["Uploader", "content_blocks", "content_size", "described"]

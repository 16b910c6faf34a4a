"""Writers that a store is tried with: several at once, one that fails half-way, one that is killed there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardfit.artifacts import ArtifactStore
from shardfit.errors import ArtifactExistsError

_DEADLINE_S = 60.0

LAST = "z-last"
"""Name of the file that comes last, and never comes where a writer fails or is killed."""


class LostDiskError(OSError):
    """What reading a file raises that is not there any more."""


@dataclass(frozen=True)
class BreakingFiles(Mapping[str, "bytes | Path"]):
    """Files of which the last one cannot be read.

    Args:
        files: Those that can.
        reached: Told when the last one is asked for, which then never comes; None to raise `LostDiskError` instead.
    """

    files: Mapping[str, bytes]
    reached: Any = None

    def __getitem__(self, name: str) -> bytes:
        if name != LAST:
            return self.files[name]
        if self.reached is None:
            raise LostDiskError("the disk is gone")
        self.reached.set()
        multiprocessing.Event().wait()
        return b""

    def __iter__(self) -> Iterator[str]:
        yield from (*self.files, LAST)

    def __len__(self) -> int:
        return len(self.files) + 1


def kill_while_putting(store: ArtifactStore, artifact: str, files: Mapping[str, bytes]) -> None:
    """Put an artifact from another process, and kill that process when all but the last file are handed over.

    Args:
        store: Pickled to the process.
        artifact: Identifier.
        files: Name -> content of the files before the last.
    """
    context = multiprocessing.get_context("spawn")
    reached = context.Event()
    writer = context.Process(target=_put_slowly, args=(store, artifact, dict(files), reached))
    writer.start()
    try:
        if not reached.wait(_DEADLINE_S):
            raise AssertionError(f"the writer did not get to the last file within {_DEADLINE_S:g} s")
    finally:
        writer.kill()
        writer.join()


def put_from_two_processes(store: ArtifactStore, artifacts: int) -> Mapping[int, list[str]]:
    """Put the same artifacts with different files from two processes at once; return who won which.

    Args:
        store: Pickled to the processes.
        artifacts: How many.
    """
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_put_many, args=(store, number, artifacts, start, results)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        return dict(results.get(timeout=_DEADLINE_S) for _ in writers)
    finally:
        for writer in writers:
            writer.join(_DEADLINE_S)
            writer.kill()


def files_of(writer: int) -> dict[str, bytes]:
    """Return the files that a writer puts under every identifier.

    Args:
        writer: Its number.
    """
    return {f"part-{k}.txt": f"{writer}".encode() * 10_000 for k in range(3)}


def _put_many(store: ArtifactStore, writer: int, artifacts: int, start: Any, results: Any) -> None:
    won = []
    start.wait()
    for i in range(artifacts):
        try:
            store.put(f"model/{i}", files_of(writer), {"writer": writer})
            won.append(f"model/{i}")
        except ArtifactExistsError:
            pass
    results.put((writer, won))


def _put_slowly(store: ArtifactStore, artifact: str, files: dict[str, bytes], reached: Any) -> None:
    store.put(artifact, BreakingFiles(files, reached))


__all__ = ["LAST", "BreakingFiles", "LostDiskError", "files_of", "kill_while_putting", "put_from_two_processes"]

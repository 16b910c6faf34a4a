"""Large files on their way from a worker to the driver: in parts, so that neither holds one whole in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardfit.errors import ArtifactError
from shardfit.events import CheckpointOffered, Event, EventSink
from shardfit.stores.files import told_as_artifact_error

PART_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart(Event):
    """A part of a file that a worker offers; those of one file come in order, before the offer itself.

    Args:
        worker: Rank of the worker that sends it.
        step: Of the checkpoint that the file belongs to.
        file: Its name in the checkpoint.
        start: Where in the file the part begins, in bytes.
        content: At most 8 MiB.
    """

    worker: int
    step: int
    file: str
    start: int
    content: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the event with the size of its content instead of the content."""
        told = {"event": self.name, "run_id": self.run_id, "attempt": self.attempt, "worker": self.worker}
        return {**told, "step": self.step, "file": self.file, "start": self.start, "content": len(self.content)}


@dataclass(frozen=True, slots=True)
class SentInParts:
    """Stands in an offer for a file whose parts were sent before.

    Args:
        worker: Rank of the worker that sent them.
        size: Bytes in all.
    """

    worker: int
    size: int

    def __len__(self) -> int:
        return self.size


def send_in_parts(
    files: Mapping[str, bytes | Path], emit: EventSink, worker: int, step: int, attempt: int
) -> dict[str, bytes | SentInParts]:
    """Send what lies on disk in parts, and return what the offer holds. Called on a worker.

    Args:
        files: Name -> content, or the path of a local file that holds it.
        emit: Sends an event to the driver; waits until it takes parts as fast as they come.
        worker: Rank.
        step: Of the checkpoint.
        attempt: Of the run.
    """
    offered: dict[str, bytes | SentInParts] = {}
    for name, content in files.items():
        if not isinstance(content, Path):
            offered[name] = content
            continue
        start = 0
        with content.open("rb") as file:
            while part := file.read(PART_BYTES):
                emit(FilePart(attempt=attempt, worker=worker, step=step, file=name, start=start, content=part))
                start += len(part)
        offered[name] = SentInParts(worker, start)
    return offered


class PartSpool:
    """Where the driver keeps parts until their file is whole: a folder that is made when a first part comes.

    One file that breaks off, because its worker died or its attempt ended, is written over by the next of its name.
    What goes wrong with a part is told when its file is asked for: it costs the checkpoint, not the run.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._names: dict[tuple[int, int, str], Path] = {}
        self._failed: dict[tuple[int, int, str], ArtifactError] = {}

    def take(self, part: FilePart) -> None:
        """Keep a part."""
        key = (part.worker, part.step, part.file)
        if part.start == 0:
            self._failed.pop(key, None)
        if key in self._failed:
            return
        try:
            self._keep(key, part)
        except ArtifactError as error:
            self._failed[key] = error
            if (path := self._names.pop(key, None)) is not None:
                path.unlink(missing_ok=True)

    def _keep(self, key: tuple[int, int, str], part: FilePart) -> None:
        asked = f"receiving {part.file!r} of checkpoint {part.step} from worker {part.worker}"
        with told_as_artifact_error(asked):
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="shardfit-parts-"))
            path = self._names.setdefault(key, self._folder / f"{part.worker}-{part.step}-{len(self._names)}")
            if part.start == 0:
                path.unlink(missing_ok=True)
            size = path.stat().st_size if path.exists() else 0
            if size != part.start:
                raise ArtifactError(asked, f"a part begins at byte {part.start:,} after {size:,} bytes", "One is lost.")
            with path.open("ab") as file:
                file.write(part.content)

    def files_of(self, offer: CheckpointOffered) -> dict[str, bytes | Path]:
        """Return the files of an offer, those that came in parts as paths that hold until `forget`.

        Raises:
            ArtifactError: A part is missing, or the local disk was full.
        """
        return {name: self._whole(offer.step, name, content) for name, content in offer.files.items()}

    def forget(self, step: int) -> None:
        """Remove the files of a checkpoint and of all before it; parts of later ones may be on their way."""
        for key in [key for key in self._names if key[1] <= step]:
            self._names.pop(key).unlink(missing_ok=True)
        self._failed = {key: error for key, error in self._failed.items() if key[1] > step}

    def close(self) -> None:
        """Remove everything."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self._names = None, {}

    def _whole(self, step: int, name: str, content: bytes | SentInParts) -> bytes | Path:
        if isinstance(content, bytes):
            return content
        key = (content.worker, step, name)
        if key in self._failed:
            raise self._failed[key]
        path = self._names.get(key)
        size = path.stat().st_size if path is not None and path.exists() else 0
        if path is not None and size == content.size:
            return path
        if content.size == 0:
            return b""
        asked = f"receiving {name!r} of checkpoint {step} from worker {content.worker}"
        raise ArtifactError(asked, f"found {size:,} of {content.size:,} bytes", "A part is lost.")


def contents(files: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    """Return files as their contents, for what takes no paths; all of them are in memory then."""
    return {name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()}

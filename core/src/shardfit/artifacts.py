"""Where finished models, checkpoints and run records are kept: whole or not at all."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from shardfit.errors import ArtifactCorruptError, InvalidArgumentError
from shardfit.source import Claim

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an artifact.

    Args:
        name: Relative, with `/` between folders.
        size: Bytes.
        sha256: Hexadecimal digest of the content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes an artifact whole: written last, and only if there is none.

    Args:
        artifact: Identifier, for example `model/20260101-120000-1a2b3c`.
        files: Sorted by name.
        metadata: Anything JSON can hold: versions, metrics, digests.
        attempt: The attempt that published it.
    """

    artifact: str
    files: tuple[StoredFile, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1

    def __post_init__(self) -> None:
        check_file_names([stored.name for stored in self.files])


class ArtifactStore(ABC):
    """A durable place for artifacts, each a set of small or large files under one identifier.

    * Atomic: a reader sees all of an artifact or none of it, whenever the writer dies.
    * Immutable: the same files under the same identifier are the same artifact and may be put again; other files
      under it are refused.
    * Checked: a torn or altered file is found by its digest when it is read.
    * Ordered: what `put` has returned is visible to every later call, from any process.
    * Thread-safe and process-safe: of two writers with different content one wins and the other is told.
    * Flat: no artifact lies inside another: `a/b` is refused where `a` is one, and the other way round.
    * Fenced: `put` with an attempt older than one that was fenced is refused.

    Stores are picklable; no credential is part of what `address` or `repr` shows.
    """

    @abstractmethod
    def address(self, artifact: str) -> str:
        """Return where people find an artifact: a path or URL, secrets left out."""

    @abstractmethod
    def put(
        self,
        artifact: str,
        files: Mapping[str, bytes | Path],
        metadata: Mapping[str, Any] | None = None,
        attempt: int = 1,
    ) -> Manifest:
        """Publish `files` under the identifier, as a whole. Called on the driver, at any time.

        Args:
            artifact: Identifier; letters, digits, `.`, `_`, `-` between single `/`.
            files: Relative name -> content, or the path of a local file that holds it.
            metadata: Kept in the manifest.
            attempt: The attempt that publishes.

        Raises:
            ArtifactExistsError: Other files are published under the identifier.
            StaleAttemptError: A newer attempt was fenced.
            ArtifactError: The store is full, gone or not writable; nothing is visible.
            InvalidArgumentError: The identifier or a name cannot be used.
        """

    @abstractmethod
    def manifest(self, artifact: str) -> Manifest:
        """Return the manifest of a whole artifact.

        Raises:
            ArtifactNotFoundError: Nothing whole stands under the identifier.
            ArtifactCorruptError: The manifest cannot be read, or names what may not be named.
        """

    @abstractmethod
    def read(self, artifact: str, name: str) -> bytes:
        """Return the content of one file, checked against its digest.

        Raises:
            ArtifactNotFoundError: No such artifact, or no such file in it.
            ArtifactCorruptError: Size or digest differ.
        """

    @abstractmethod
    def get(self, artifact: str, directory: Path) -> Manifest:
        """Write every file of an artifact below `directory`, checked; names from the manifest are not trusted.

        Raises:
            ArtifactNotFoundError, ArtifactCorruptError: As for `read`; `directory` is left as it was.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the identifiers of whole artifacts that start with `prefix`, sorted."""

    @abstractmethod
    def delete(self, artifact: str) -> None:
        """Remove an artifact; none there is no error. Readers see it whole until they see it gone."""

    @abstractmethod
    def collect_garbage(self) -> int:
        """Remove what never got its manifest and is not being written; return how many files went."""

    @abstractmethod
    def fence(self, run_id: str, attempt: int) -> None:
        """Refuse every later `put` below `run/{run_id}/` and `model/{run_id}` by an older attempt."""


class ArtifactStoreOpener(Protocol):
    """What `shardfit_artifact_stores` maps a name to."""

    def claims(self, location: str) -> Claim | None:
        """Return a claim if the location can be opened, else None. Cheap, no I/O."""

    def open(self, location: str, options: Mapping[str, Any]) -> ArtifactStore:
        """Return the store at `location`.

        Raises:
            ArtifactError: It cannot be opened.
        """


_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def is_artifact_identifier(artifact: str) -> bool:
    """Return whether every store can hold an artifact under this identifier."""
    return _IDENTIFIER.fullmatch(artifact) is not None


def check_artifact_identifier(artifact: str) -> str:
    """Return an identifier that every store can hold.

    Raises:
        InvalidArgumentError: It is empty, absolute, has `..` or a character that some store refuses.
    """
    if not is_artifact_identifier(artifact):
        raise InvalidArgumentError(
            "naming an artifact",
            f"found {artifact!r}",
            "Use letters, digits, '.', '_' and '-', with single '/' between.",
        )
    return artifact


def check_file_names(names: list[str]) -> None:
    """Check that file names of an artifact stay inside it and differ on every file system.

    Raises:
        ArtifactCorruptError: A name is absolute, climbs out, is the manifest's, equals another but for case, or
            needs a folder where another is a file.
    """
    seen: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        inside = path.parts and not path.is_absolute() and ".." not in path.parts and str(path) == name
        if not inside or "\\" in name or ":" in name or "\0" in name or path.parts[0].lower() == MANIFEST_NAME:
            raise ArtifactCorruptError("checking the names in an artifact", f"found {name!r}", "It is not safe.")
        if (other := seen.get(name.lower())) is not None:
            raise ArtifactCorruptError("checking the names in an artifact", f"found {other!r} and {name!r}")
        seen[name.lower()] = name
    for name in names:
        for folder in PurePosixPath(name.lower()).parents:
            if (other := seen.get(str(folder))) is not None:
                found = f"{other!r} is a file, and in {name!r} a folder"
                raise ArtifactCorruptError("checking the names in an artifact", found)

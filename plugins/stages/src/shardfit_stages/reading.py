"""Reading published artifacts: manifests as if strangers had written them, files checked against their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shardfit.artifacts import Manifest, StoredFile
from shardfit.errors import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError
from shardfit.stores.arrivals import arriving_in, move_files
from shardfit.stores.files import told_as_artifact_error
from shardfit.stores.manifests import encoded_manifest, manifest_from_json
from shardfit_stages.layout import file_key, is_put, manifest_key
from shardfit_stages.service import ObjectService
from shardfit_stages.service_errors import ObjectMissingError

_FILES_AT_ONCE = 4
_LARGEST_MANIFEST = 64 * 2**20

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Published:
    """A manifest, and where the files that it names lie.

    Args:
        manifest: What makes the artifact whole.
        put: The folder of its files, below the artifact.
    """

    manifest: Manifest
    put: str

    def to_json(self, asked: str) -> bytes:
        """Return what is stored under the manifest's key."""
        return json.dumps({**json.loads(encoded_manifest(self.manifest, asked)), "folder": self.put}, indent=1).encode()


def read_published(service: ObjectService, artifact: str) -> Published | None:
    """Return what is published under an identifier, or None.

    Raises:
        ArtifactCorruptError: Something is, and cannot be trusted.
    """
    asked, key = f"reading the manifest of {artifact!r}", manifest_key(artifact)
    try:
        if service.size(key) > _LARGEST_MANIFEST:
            raise ArtifactCorruptError(asked, f"it is larger than {_LARGEST_MANIFEST:,} bytes", "It was altered.")
        content = service.get(key)
    except ObjectMissingError:
        return None
    manifest = manifest_from_json(content, artifact)
    put = json.loads(content).get("folder")
    if not is_put(put):
        raise ArtifactCorruptError(asked, f"its folder is {put!r}", "It was altered; put the artifact again.")
    return Published(manifest, put)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads artifacts of one service.

    Args:
        service: Has them.
    """

    service: ObjectService

    def published(self, artifact: str) -> Published:
        """Return what is published under an identifier.

        Raises:
            ArtifactNotFoundError: Nothing is.
        """
        found = read_published(self.service, artifact)
        if found is None:
            raise ArtifactNotFoundError(f"looking for {artifact!r}", f"there is none in {self.service.url!r}")
        return found

    def read(self, artifact: str, name: str) -> bytes:
        """Return the content of one file, checked."""

        def read(published: Published) -> bytes:
            files = {stored.name: stored for stored in published.manifest.files}
            if (stored := files.get(name)) is None:
                has = ", ".join(repr(one) for one in files) or "no file"
                raise ArtifactNotFoundError(
                    f"reading {name!r} of {artifact!r}", "it has no such file", f"It has {has}."
                )
            return b"".join(self._checked_blocks(published, stored))

        return self._while_it_stands(artifact, read)

    def get(self, artifact: str, directory: Path) -> Manifest:
        """Write every file below `directory`, checked, a block at a time."""

        def get(published: Published) -> Manifest:
            manifest = published.manifest
            with arriving_in(directory) as arriving, ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                writing = [pool.submit(self._write, published, stored, arriving) for stored in manifest.files]
                try:
                    for one in writing:
                        one.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                move_files(manifest, arriving, directory)
            return manifest

        return self._while_it_stands(artifact, get)

    def _write(self, published: Published, stored: StoredFile, arriving: Path) -> None:
        path = arriving / stored.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for block in self._checked_blocks(published, stored):
                file.write(block)

    def _checked_blocks(self, published: Published, stored: StoredFile) -> Iterator[bytes]:
        artifact = published.manifest.artifact
        key, asked = file_key(artifact, published.put, stored.name), f"reading {stored.name!r} of {artifact!r}"
        if (size := self.service.size(key)) != stored.size:
            raise ArtifactCorruptError(asked, f"found {size} bytes where {stored.size} were stored", "It is torn.")
        sha = hashlib.sha256()
        for block in self.service.blocks(key, size):
            sha.update(block)
            yield block
        if sha.hexdigest() != stored.sha256:
            raise ArtifactCorruptError(asked, "its digest is another", "It was altered; put the artifact again.")

    def _while_it_stands(self, artifact: str, use: Callable[[Published], Result]) -> Result:
        while True:
            published = self.published(artifact)
            try:
                with told_as_artifact_error(f"reading {artifact!r}"):
                    return use(published)
            except ArtifactNotFoundError:
                raise
            except ArtifactError as error:
                # Deleted meanwhile is gone, not corrupt; put anew meanwhile is worth another look.
                if self.published(artifact) != published:
                    continue
                if isinstance(error, ObjectMissingError):
                    raise ArtifactCorruptError(error.asked, "it is missing", "Put the artifact again.") from error
                raise

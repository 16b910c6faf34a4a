"""Artifacts in an object store: S3, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shardfit.artifacts import ArtifactStore, Manifest

from shardfit_stages.progress import ProgressSink


class ObjectArtifactStore(ArtifactStore):
    """An artifact store below a URL of an object store.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        options: Passed on to the service's client, for example `endpoint`, `region`; never shown.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self._options = dict(options or {})

    def with_progress(self, progress: ProgressSink) -> ObjectArtifactStore:
        """Return the same store, whose uploads tell `progress` how far they are."""
        raise NotImplementedError

    def address(self, artifact: str) -> str:
        raise NotImplementedError

    def put(
        self,
        artifact: str,
        files: Mapping[str, bytes | Path],
        metadata: Mapping[str, Any] | None = None,
        attempt: int = 1,
    ) -> Manifest:
        raise NotImplementedError

    def manifest(self, artifact: str) -> Manifest:
        raise NotImplementedError

    def read(self, artifact: str, name: str) -> bytes:
        raise NotImplementedError

    def get(self, artifact: str, directory: Path) -> Manifest:
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[str]:
        raise NotImplementedError

    def latest(self, prefix: str = "") -> str:
        """Return the identifier published last among those that start with `prefix`."""
        raise NotImplementedError

    def delete(self, artifact: str) -> None:
        raise NotImplementedError

    def collect_garbage(self) -> int:
        raise NotImplementedError

    def fence(self, run_id: str, attempt: int) -> None:
        raise NotImplementedError


def open_object_store(url: str, options: Mapping[str, Any] | None = None) -> ArtifactStore:
    """Return the store at `url`: an object store for s3, gs and az, the core's own for `file://` URLs and paths.

    Args:
        url: Where it is.
        options: For object stores only; passed on to the service's client.
    """
    return ObjectArtifactStore(url, options)

"""Manifests as JSON, for every store: what comes back is checked as if a stranger had written it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from shardfit.artifacts import Manifest, StoredFile, check_file_names
from shardfit.errors import ArtifactCorruptError, InvalidArgumentError

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


def manifest_to_json(manifest: Manifest) -> bytes:
    """Return a manifest as JSON; the same manifest gives the same bytes.

    Raises:
        TypeError: The metadata hold something that JSON cannot.
        ValueError: The metadata hold a number that JSON cannot.
    """
    content = {
        "format": FORMAT,
        "artifact": manifest.artifact,
        "attempt": manifest.attempt,
        "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in manifest.files],
        "metadata": dict(manifest.metadata),
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()


def encoded_manifest(manifest: Manifest, asked: str) -> bytes:
    """Return a manifest as JSON, for a store that is asked to `put` it.

    Raises:
        InvalidArgumentError: The metadata hold something that JSON cannot.
    """
    try:
        return manifest_to_json(manifest)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(asked, f"the metadata cannot be JSON: {error}", "Use plain values.") from error


def check_names_to_put(names: Iterable[str], asked: str) -> None:
    """Check the names of files that a store is asked to `put`.

    Raises:
        InvalidArgumentError: They would not stay inside the artifact, or not apart.
    """
    try:
        check_file_names(list(names))
    except ArtifactCorruptError as error:
        raise InvalidArgumentError(asked, error.found, "Use relative names that differ by more than case.") from error


def manifest_from_json(content: bytes, artifact: str) -> Manifest:
    """Return the manifest that `manifest_to_json` wrote.

    Args:
        content: What was read.
        artifact: Where it was read; the manifest must say the same.

    Raises:
        ArtifactCorruptError: It is torn, of another format or another artifact, or names what may not be named.
    """
    asked = f"reading the manifest of {artifact!r}"
    try:
        fields: dict[str, Any] = json.loads(content)
        if fields["format"] != FORMAT:
            raise ArtifactCorruptError(asked, f"found format {fields['format']!r}", f"This version reads {FORMAT}.")
        if fields["artifact"] != artifact:
            raise ArtifactCorruptError(asked, f"it is that of {fields['artifact']!r}", "A folder was moved.")
        files = tuple(_stored_file(entry, asked) for entry in fields["files"])
        attempt, metadata = fields["attempt"], fields["metadata"]
        if type(attempt) is not int or not isinstance(metadata, dict):
            raise TypeError(f"attempt is {attempt!r}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, ArtifactCorruptError):
            raise
        raise ArtifactCorruptError(asked, f"it is torn or altered: {error!r}", "Put the artifact again.") from error
    return Manifest(artifact, files, metadata, attempt)


def _stored_file(entry: dict[str, Any], asked: str) -> StoredFile:
    name, size, sha256 = entry["name"], entry["size"], entry["sha256"]
    if not isinstance(name, str) or type(size) is not int or size < 0 or not _SHA256.fullmatch(sha256):
        raise ArtifactCorruptError(asked, f"an entry of its files is {entry!r}", "It was altered.")
    return StoredFile(name, size, sha256)

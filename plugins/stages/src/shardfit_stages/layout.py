"""Where things lie below the URL of an object store.

```
model/<run id>/manifest.json          written last; says which folder holds the files
model/<run id>/put=<12 digits>/…      the files of one put: never written by another, never written twice
.writing/model/<run id>/put=<…>       a put that goes on; written anew as a sign of life
.publishing/model/<run id>/put=<…>    a put in the moment in which it publishes: one at a time
.fences/<run id>/attempt=<n>          the highest number counts
```

Every put has a folder of its own, because an object store cannot rename a folder: whatever a writer does that was
thought dead and comes back, it cannot touch what another has published.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator

from shardfit.artifacts import MANIFEST_NAME, is_artifact_identifier

WRITING, PUBLISHING, FENCES = ".writing", ".publishing", ".fences"
_PUT = re.compile(r"put=[0-9a-f]{12}")
_PUT_IN_KEY = re.compile(r"(?P<artifact>.+?)/(?P<put>put=[0-9a-f]{12})(/.*)?")


def new_put() -> str:
    """Return the name of a new folder for the files of one put."""
    return f"put={uuid.uuid4().hex[:12]}"


def is_put(name: object) -> bool:
    """Return whether `name` is one that `new_put` may have given."""
    return isinstance(name, str) and _PUT.fullmatch(name) is not None


def manifest_key(artifact: str) -> str:
    """Return the key of an artifact's manifest."""
    return f"{artifact}/{MANIFEST_NAME}"


def file_key(artifact: str, put: str, name: str) -> str:
    """Return the key of a file that a put wrote."""
    return f"{artifact}/{put}/{name}"


def mark_key(kind: str, artifact: str, put: str) -> str:
    """Return the key of a put's mark.

    Args:
        kind: `WRITING` or `PUBLISHING`.
        artifact: What is put.
        put: Its folder.
    """
    return f"{kind}/{artifact}/{put}"


def artifact_and_put(key: str) -> tuple[str, str] | None:
    """Return what a file or a mark belongs to, or None where the key is neither's."""
    for kind in (WRITING, PUBLISHING):
        key = key.removeprefix(f"{kind}/")
    found = _PUT_IN_KEY.fullmatch(key)
    return (found["artifact"], found["put"]) if found and is_artifact_identifier(found["artifact"]) else None


def artifacts_of(keys: Iterable[str]) -> Iterator[str]:
    """Yield the identifiers that have a manifest among the keys."""
    for key in keys:
        artifact, slash, name = key.rpartition("/")
        if slash and name == MANIFEST_NAME and is_artifact_identifier(artifact):
            yield artifact


def conflict(one: str, other: str) -> bool:
    """Return whether two identifiers cannot both be artifacts: they are the same, or one lies inside the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")

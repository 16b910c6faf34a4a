"""Removing what was never published, and never what somebody is still writing."""

from __future__ import annotations

from contextlib import suppress

from shardfit.errors import ArtifactCorruptError
from shardfit_stages.identity import this_process
from shardfit_stages.layout import PUBLISHING, WRITING, artifact_and_put, mark_key, new_put
from shardfit_stages.marks import is_dead, outlast_requests
from shardfit_stages.reading import read_published
from shardfit_stages.service import ObjectService, StoredObject

_PROBE = "gc"


def collect_garbage(service: ObjectService, life_s: float, lease_s: float) -> int:
    """Remove the files that no manifest names and no living writer claims, and marks of the dead.

    The order counts: first the files are listed, then the marks, then manifests are read. A writer makes its mark
    before its first file and removes it after its manifest; so a file without a mark is published by now, or never.

    Args:
        service: Has them.
        life_s: Seconds after which a writer without a sign of life is dead.
        lease_s: The same for one that publishes.

    Returns:
        How many files went.
    """
    found = service.list()
    probe = mark_key(WRITING, _PROBE, new_put())
    service.put(probe, this_process())
    try:
        marks = {mark.key: mark for mark in service.list(WRITING)}
        younger = marks.pop(probe)
        # A writer that has just ended has published, or takes its own files away.
        dead = {key for key, mark in marks.items() if is_dead(service, mark, younger, life_s)}
        if dead:
            outlast_requests()
        files = _files_by_put(found)
        went = 0
        for (artifact, put), keys in sorted(files.items()):
            mark = mark_key(WRITING, artifact, put)
            if (mark not in marks or mark in dead) and not _is_published(service, artifact, put):
                service.delete(keys)
                went += len(keys)
        service.delete(sorted(dead))
        locks = [lock for lock in service.list(PUBLISHING) if is_dead(service, lock, younger, lease_s)]
        service.delete([lock.key for lock in locks])
        return went
    finally:
        service.delete([probe])


def _files_by_put(found: list[StoredObject]) -> dict[tuple[str, str], list[str]]:
    files: dict[tuple[str, str], list[str]] = {}
    for one in found:
        belongs = artifact_and_put(one.key)
        if belongs is not None and not one.key.startswith("."):
            files.setdefault(belongs, []).append(one.key)
    return files


def _is_published(service: ObjectService, artifact: str, put: str) -> bool:
    # A manifest that cannot be read may name any of them.
    with suppress(ArtifactCorruptError):
        published = read_published(service, artifact)
        return published is not None and published.put == put
    return True

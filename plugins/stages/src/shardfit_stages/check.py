"""What a stage lets its user do, found out by doing it: for `shardfit stage check`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from shardfit.artifacts import ArtifactStore
from shardfit.errors import ArtifactError
from shardfit_stages.layout import WRITING, mark_key, new_put
from shardfit_stages.service import ObjectService
from shardfit_stages.service_errors import ObjectExistsError
from shardfit_stages.store import ObjectArtifactStore

_PROBE = "check"
_NOT_TRIED = "Not tried: nothing could be written."
_UNCONDITIONAL = (
    "The service overwrites where it is asked to create. Publishing is then guarded by a lock alone: safe, unless a "
    "writer stops for longer than its lease (lease_s) in the middle of one request."
)
_NOT_LISTED = "What was just written is not listed: the service cannot keep two writers apart. Do not use it."


@dataclass(frozen=True, slots=True)
class CheckedRight:
    """One right that was tried.

    Args:
        right: `write`, `read`, `list`, `create if absent` or `delete`.
        granted: Whether it worked.
        advice: What it means where it did not, and what to do; empty where it did.
    """

    right: str
    granted: bool
    advice: str = ""


def check_store(store: ArtifactStore) -> tuple[CheckedRight, ...]:
    """Try each right with a small object that is removed again; one that fails does not keep others from being tried.

    Args:
        store: Local or remote.

    Raises:
        InvalidArgumentError: The store's URL or an option cannot be used.
    """
    if isinstance(store, ObjectArtifactStore):
        return _check_service(store.service)
    return _check_artifacts(store)


def _check_service(service: ObjectService) -> tuple[CheckedRight, ...]:
    key = mark_key(WRITING, _PROBE, new_put())
    written = _tried("write", lambda: service.put(key, b"1"))
    if not written.granted:
        listed = _tried("list", lambda: service.list(WRITING) is None)
        untried = [CheckedRight(right, False, _NOT_TRIED) for right in ("read", "create if absent", "delete")]
        return (written, untried[0], listed, *untried[1:])
    return (
        written,
        _tried("read", lambda: service.get(key) != b"1", "Another content was read than was written."),
        _tried("list", lambda: key not in {one.key for one in service.list(WRITING)}, _NOT_LISTED),
        _tried("create if absent", lambda: _overwrites(service, key), _UNCONDITIONAL),
        _tried("delete", lambda: service.delete([key])),
    )


def _overwrites(service: ObjectService, key: str) -> bool:
    with suppress(ObjectExistsError):
        service.create(key, b"2")
        return True
    return False


def _check_artifacts(store: ArtifactStore) -> tuple[CheckedRight, ...]:
    artifact = f"{_PROBE}/{new_put().removeprefix('put=')}"
    written = _tried("write", lambda: store.put(artifact, {"probe": b"1"}) is None)
    listed = _tried("list", lambda: written.granted and artifact not in store.list(_PROBE), _NOT_LISTED)
    if not written.granted:
        untried = [CheckedRight(right, False, _NOT_TRIED) for right in ("read", "create if absent", "delete")]
        return (written, untried[0], listed, *untried[1:])
    return (
        written,
        _tried("read", lambda: store.read(artifact, "probe") != b"1"),
        listed,
        _tried("create if absent", lambda: _replaces(store, artifact), "Another artifact was overwritten."),
        _tried("delete", lambda: store.delete(artifact)),
    )


def _replaces(store: ArtifactStore, artifact: str) -> bool:
    with suppress(FileExistsError):
        store.put(artifact, {"probe": b"2"})
        return True
    return False


def _tried(right: str, fails: Callable[[], bool | None], advice: str = "") -> CheckedRight:
    try:
        failed = fails()
    except ArtifactError as error:
        return CheckedRight(right, False, str(error))
    return CheckedRight(right, not failed, advice if failed else "")

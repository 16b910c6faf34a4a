"""A service in memory that fails, or whose writer dies, at a chosen call; and one whose clock is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from shardfit.errors import ArtifactError
from shardfit_stages.service import BLOCK, ObjectService, StoredObject
from shardfit_stages.service_errors import ObjectExistsError, ObjectMissingError, ServiceError
from shardfit_stages.store import ObjectArtifactStore

URL = "s3://stage/somewhere"


class WriterDiedError(BaseException):
    """Stands for a process that is killed: nothing that it would do afterwards is done."""


class MemoryService(ObjectService):
    """Objects in a dict, which several of these may share as processes share a service.

    Args:
        objects: Key -> content and the time of the last write.
        conditional: Whether `create` refuses to overwrite.
        skew: Added to every time that the service tells.
    """

    def __init__(
        self,
        objects: dict[str, tuple[bytes, datetime]],
        conditional: bool = True,
        skew: timedelta = timedelta(),
    ) -> None:
        self.url, self.patience_s = URL, 5.0
        self.objects, self.conditional, self.skew = objects, conditional, skew
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self._calling = threading.RLock()

    def put(self, key: str, content: bytes) -> None:
        self._call(f"put {key}", lambda: self._write(key, content))

    def create(self, key: str, content: bytes) -> None:
        def create() -> None:
            if self.conditional and key in self.objects:
                raise ObjectExistsError(f"writing {key!r}", "it is there")
            self._write(key, content)

        self._call(f"create {key}", create)

    def upload(self, key: str, blocks: Callable[[], Iterable[bytes]], size: int, at_once: int) -> None:
        self._call(f"upload {key}", lambda: self._write(key, b"".join(blocks())))

    def get(self, key: str) -> bytes:
        return self._call(f"get {key}", lambda: self._read(key))

    def blocks(self, key: str, size: int) -> Iterator[bytes]:
        content = self._call(f"blocks {key}", lambda: self._read(key))
        yield from (content[start : start + BLOCK] for start in range(0, min(size, len(content)), BLOCK))

    def size(self, key: str) -> int:
        return len(self._call(f"size {key}", lambda: self._read(key)))

    def list(self, prefix: str = "") -> list[StoredObject]:
        def ask() -> list[StoredObject]:
            inside = {key: one for key, one in self.objects.items() if not prefix or key.startswith(f"{prefix}/")}
            return [StoredObject(key, len(one[0]), one[1] + self.skew) for key, one in sorted(inside.items())]

        return self._call(f"list {prefix}", ask)

    def copy(self, source: str, target: str) -> None:
        self._call(f"copy {target}", lambda: self._write(target, self._read(source)))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._call(f"delete {key}", lambda key=key: self.objects.pop(key, None))  # type: ignore[misc]

    def _call(self, call: str, do: Callable[[], Any]) -> Any:
        with self._calling:
            self.calls.append(call)
            self.before(call)
            try:
                return do()
            finally:
                self.after(call)

    def _read(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissingError(f"reading {key!r}", "it is not there")
        return self.objects[key][0]

    def _write(self, key: str, content: bytes) -> None:
        self.objects[key] = (content, datetime.now(UTC))


def store_on(service: ObjectService, **options: Any) -> ObjectArtifactStore:
    """Return a store that uses the service."""
    store = ObjectArtifactStore(URL, options)
    store.__dict__["service"] = service
    return store


class FailingAt:
    """Makes a service fail, or its writer die, from a chosen call on.

    Args:
        service: The one that fails.
        number: Of the call, from 0.
        died: Whether the writer dies; else the service fails for that one call.
        arrives: Whether what is asked for is done before it fails: the answer is lost.
        error: What is raised where the writer lives.
    """

    def __init__(
        self, service: MemoryService, number: int, died: bool, arrives: bool, error: ArtifactError | None = None
    ) -> None:
        self._service, self._number, self._died = service, number, died
        self._error = error
        self.reached = False
        if arrives:
            service.after = self._meet
        else:
            service.before = self._meet

    def _meet(self, call: str) -> None:
        number = len(self._service.calls) - 1
        if number < self._number:
            return
        if self._died:
            self.reached = True
            # The dead write nothing more, whatever their `finally` clauses ask for.
            self._service.before = self._refuse
            raise WriterDiedError
        if number == self._number:
            self.reached = True
            raise self._error or ServiceError(call, "the service failed")

    def _refuse(self, call: str) -> None:
        raise WriterDiedError

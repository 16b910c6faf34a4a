"""The few things that a store asks of an object store, each tried again for as long as it may help."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from shardfit_stages.credentials import client_settings
from shardfit_stages.service_errors import ObjectMissingError, ServiceError, scrubber, translating

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

Result = TypeVar("Result")

BLOCK = 8 * 2**20
"""Bytes that are sent or read at once."""

_MOST_PARTS = 9_000
_GIVEN_UP = "the service gave the upload up: is it full, or was it stopped?"
_QUICK_S = 15.0
_LONGEST_REQUEST_S = 86_400.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a list tells it.

    Args:
        key: Its name below the URL of the store.
        size: Bytes.
        changed: When it was written last, by the clock of the service.
    """

    key: str
    size: int
    changed: datetime


class _ContentError(Exception):
    """The content of an upload cannot be read."""


class ObjectService:
    """An object store below a URL. Thread-safe; objects are written as a whole or not at all.

    Errors are `ArtifactError`; `ServiceError` where it failed for `patience_s` and may work later.

    Args:
        url: Of the store.
        options: Of its client.
        patience_s: Seconds for which what fails is tried again.
    """

    def __init__(self, url: str, options: Mapping[str, Any], patience_s: float) -> None:
        self.url = url
        self.patience_s = patience_s
        self._scrub = scrubber(options)
        self._patient = self._open(options, patience_s, _LONGEST_REQUEST_S)
        self._quick = self._open(options, min(patience_s, _QUICK_S), _QUICK_S)

    def put(self, key: str, content: bytes) -> None:
        """Write a small object, in place of one that is there."""
        self._retried(f"writing {key!r}", lambda: self._patient.put(key, content, use_multipart=False))

    def create(self, key: str, content: bytes) -> None:
        """Write a small object where there is none, within seconds or not at all.

        Some services ignore the condition: see `check_store`.

        Raises:
            ObjectExistsError: There is one; it may be this very one, if a first answer was lost.
        """
        with translating(self._asked(f"writing {key!r}"), self._scrub):
            self._quick.put(key, content, mode="create", use_multipart=False)

    def upload(self, key: str, blocks: Callable[[], Iterable[bytes]], size: int, at_once: int) -> None:
        """Write a large object in parts, several at once.

        Args:
            key: Its name.
            blocks: Gives the content from its start, each time it is called.
            size: Bytes, about.
            at_once: Parts that are sent at once; each is in memory.
        """
        part = max(BLOCK, -(-size // _MOST_PARTS))
        raised: list[Exception] = []

        def watched() -> Iterator[bytes]:
            # What reading the content raises would come back as if the service had failed.
            try:
                yield from blocks()
            except Exception as error:
                raised.append(error)
                raise

        def send() -> None:
            try:
                self._patient.put(key, watched(), use_multipart=True, chunk_size=part, max_concurrency=at_once)
            except Exception as error:
                if raised:
                    raise _ContentError from raised[0]
                if "NoSuchUpload" not in str(error):
                    raise
                # The service has forgotten the upload, as after a restart: it is sent again from the start.
                raise ServiceError(self._asked(f"writing {key!r}"), _GIVEN_UP) from None

        try:
            self._retried(f"writing {key!r}", send)
        except _ContentError:
            raise raised[0] from None

    def get(self, key: str) -> bytes:
        """Return the content of a small object.

        Raises:
            ObjectMissingError: There is none.
        """
        return self._retried(f"reading {key!r}", lambda: bytes(self._patient.get(key).bytes()))

    def blocks(self, key: str, size: int) -> Iterator[bytes]:
        """Yield the content of an object block by block, up to `size` bytes.

        Raises:
            ObjectMissingError: There is none.
        """
        done, until, pause = 0, time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while done < size:
            begun = done
            try:
                with translating(self._asked(f"reading {key!r}"), self._scrub):
                    for block in _from(done, self._patient.get(key).stream(min_chunk_size=BLOCK)):
                        yield block[: size - done]
                        done += len(block)
                return
            except ServiceError:
                if done > begun:
                    until, pause = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
                elif time.monotonic() + pause > until:
                    raise
            pause = _rest(pause)

    def size(self, key: str) -> int:
        """Return the size of an object in bytes.

        Raises:
            ObjectMissingError: There is none.
        """
        return self._retried(f"looking for {key!r}", lambda: int(self._patient.head(key)["size"]))

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Return the objects in a folder and in all below it, sorted by key."""

        def ask() -> list[StoredObject]:
            found = self._patient.list(prefix or None, chunk_size=1000).collect()
            return [StoredObject(str(one["path"]), int(one["size"]), one["last_modified"]) for one in found]

        return sorted(self._retried(f"listing {prefix!r}", ask), key=lambda found: found.key)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the service.

        Raises:
            ObjectMissingError: There is no source.
        """
        self._retried(f"copying {source!r}", lambda: self._patient.copy(source, target))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        for key in keys:
            with suppress(ObjectMissingError):
                self._retried(f"removing {key!r}", partial(self._patient.delete, key))

    def _open(self, options: Mapping[str, Any], patience_s: float, request_s: float) -> ObjectStore:
        from obstore.store import from_url

        with translating(self._asked("opening the client"), self._scrub):
            return from_url(self.url, **client_settings(self.url, options, os.environ, patience_s, request_s))

    def _asked(self, doing: str) -> str:
        return f"{doing} in {self.url!r}"

    def _retried(self, doing: str, call: Callable[[], Result]) -> Result:
        # obstore tries single requests again; this is for what is left: a body cut short, an upload that is lost.
        until, pause = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                with translating(self._asked(doing), self._scrub):
                    return call()
            except ServiceError:
                if time.monotonic() + pause > until:
                    raise
            pause = _rest(pause)


def _rest(pause: float) -> float:
    # Writers that fail together must not come back together.
    time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
    return min(2 * pause, _LONGEST_PAUSE_S)


def _from(start: int, blocks: Iterable[Buffer]) -> Iterator[bytes]:
    # Not every service gives a range, so what was read before a connection broke is read again and left out.
    for block in blocks:
        content = bytes(block)
        if start < len(content):
            yield content[start:]
        start = max(start - len(content), 0)

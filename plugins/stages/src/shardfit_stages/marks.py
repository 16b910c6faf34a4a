"""Signs of life, and one writer at a time: small objects that say who is doing what.

Ages are differences between two times of the service's own clock, so that no machine's clock counts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from shardfit.errors import ArtifactError
from shardfit_stages.identity import has_died, this_process
from shardfit_stages.layout import PUBLISHING, WRITING, artifact_and_put, conflict, mark_key, new_put
from shardfit_stages.service import ObjectService, StoredObject
from shardfit_stages.service_errors import ObjectMissingError

_BEATS_A_LIFE = 8
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.01, 0.5
_LAST_REQUEST_S = 1.0


def now_s() -> float:
    """Return seconds since some moment; unlike `time.monotonic` on Linux, a machine that sleeps counts them too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def is_dead(service: ObjectService, mark: StoredObject, younger: StoredObject, life_s: float) -> bool | None:
    """Return whether the writer of a mark does not live any more, or None where the mark itself is gone by now.

    Args:
        service: Keeps the mark.
        mark: The one in question.
        younger: A mark that was written just now: it tells the service's time.
        life_s: Seconds after which a mark that was not written anew is dead.
    """
    if (younger.changed - mark.changed).total_seconds() > life_s:
        return True
    try:
        return has_died(service.get(mark.key))
    except ObjectMissingError:
        return None


def outlast_requests() -> None:
    """Wait for what a process that has just died may have sent: the service may still be at it."""
    time.sleep(_LAST_REQUEST_S)


class LifeSign:
    """A mark that is written anew, from a thread of its own, for as long as a put goes on.

    Args:
        service: Keeps the mark.
        artifact: What is put.
        put: Its folder.
        life_s: Seconds after which others take the writer for dead.
    """

    def __init__(self, service: ObjectService, artifact: str, put: str, life_s: float) -> None:
        self._service, self._key, self._life_s = service, mark_key(WRITING, artifact, put), life_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, daemon=True)
        self._last = now_s()

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def remove(self) -> None:
        """Say that the put has ended. What fails here only leaves a mark that dies by itself."""
        with suppress(ArtifactError):
            self._service.delete([self._key])

    def check(self, asked: str) -> None:
        """Check that nobody can have taken this writer for dead.

        Raises:
            ArtifactError: The last sign of life is too old.
        """
        if self._is_old():
            found = f"for {self._life_s / 2:g} s and more no sign of life reached the service"
            raise ArtifactError(asked, found, "What was sent may be removed as garbage; put again.")

    def _is_old(self) -> bool:
        return now_s() - self._last > self._life_s / 2

    def _beat(self) -> None:
        begun = now_s()
        self._service.put(self._key, this_process())
        self._last = begun

    def _beat_until_ended(self) -> None:
        # One that comes late must not come at all: a collector may have removed the mark.
        while not self._ended.wait(self._life_s / _BEATS_A_LIFE) and not self._is_old():
            with suppress(ArtifactError):
                self._beat()


@contextmanager
def publishing(service: ObjectService, artifact: str, asked: str, lease_s: float) -> Iterator[Callable[[], None]]:
    """Be the only writer of this artifact, and of all that it lies in or that lies in it.

    Works on any service whose lists show what was written before. Each writes its mark, then looks for those of
    others, so that of two at least one sees the other: the one with the lower number waits for the other to leave, the
    one with the higher number takes its mark away and tries again.

    Args:
        service: Keeps the marks.
        artifact: What is published, fenced or deleted.
        asked: What is being done, for messages.
        lease_s: Seconds after which a mark is taken for that of a dead writer.

    Yields:
        A function to call just before the write that counts: it raises `ArtifactError` where the lock is so old that
        another may take it before that write has arrived.

    Raises:
        ArtifactError: Others held the lock all the time.
    """
    until, pause = now_s() + service.patience_s + lease_s, _FIRST_WAIT_S
    while (held := _try_to_enter(service, artifact, lease_s)) is None:
        if now_s() > until:
            raise ArtifactError(asked, "other writers are publishing there all the time", "Try again.")
        time.sleep(random.uniform(0.1, 1.0) * pause)  # noqa: S311 - no secret
        pause = min(2 * pause, _LONGEST_WAIT_S)
    key, begun = held

    def check() -> None:
        if now_s() - begun > lease_s / 2:
            raise ArtifactError(asked, f"the service took more than {lease_s / 2:g} s to answer", "Try again.")

    try:
        yield check
    finally:
        # A mark that cannot be removed dies by itself; what was published stays published.
        with suppress(ArtifactError):
            service.delete([key])


def _try_to_enter(service: ObjectService, artifact: str, lease_s: float) -> tuple[str, float] | None:
    put, pause, begun = new_put(), _FIRST_WAIT_S, now_s()
    key = mark_key(PUBLISHING, artifact, put)
    try:
        service.put(key, this_process())
        while now_s() - begun < lease_s / 4:
            rivals = _rivals(service, artifact, key, lease_s)
            if rivals is None or any(rival < put for rival in rivals):
                break
            if not rivals:
                return key, begun
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)
    except BaseException:
        with suppress(ArtifactError):
            service.delete([key])
        raise
    service.delete([key])
    return None


def _rivals(service: ObjectService, artifact: str, key: str, lease_s: float) -> list[str] | None:
    marks = {mark.key: mark for mark in service.list(PUBLISHING)}
    if (mine := marks.pop(key, None)) is None:
        return None
    living = []
    for mark in marks.values():
        other = artifact_and_put(mark.key)
        if other is None or not conflict(other[0], artifact):
            continue
        dead = is_dead(service, mark, mine, lease_s)
        if dead:
            outlast_requests()
            service.delete([mark.key])
        elif dead is not None:
            living.append(other[1])
    return living

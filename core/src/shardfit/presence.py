"""The sign of life that a running driver leaves in its stage, which tells a run that goes on from a lost one.

It is an artifact, `run/<run id>/alive-<attempt>-<number>`: each sign is a new one, and the one before it goes; only the
first of an attempt, with the number 0, stays until the attempt ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from shardfit.artifacts import ArtifactStore
from shardfit.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactExistsError,
    ArtifactNotFoundError,
    StaleAttemptError,
)
from shardfit.process_identity import has_ended, started_at, this_machine_now
from shardfit.run_record import RunRecord, list_records

logger = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
# Six signs that did not come; clocks of two machines may differ by a part of that.
SILENT_SECONDS = 60.0
_FILE = "presence.json"
_SIGN = re.compile(r"run/.+/alive-(\d{1,9})-(\d{1,9})")
_FIRST_AND_LAST = 2
_LOOKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What a driver says of itself and of its run, so that another one can go on with it.

    Args:
        run_id: The run.
        attempt: The one that is being made.
        trainer: Name of the trainer.
        described: `Job.describe()`, for people.
        job: What `portable_job` gave; empty where the job cannot be written down.
        why_no_job: Why not.
        fingerprint: Of the data: what `RunPlan.fingerprint` gives.
        host: Name of its machine.
        machine: Identifies the start of that machine, and the container on it.
        pid: Its process there.
        started: When the kernel started that, in ticks since the machine did.
        at: When the sign was left, in UTC.
    """

    run_id: str
    attempt: int
    trainer: str = ""
    described: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    why_no_job: str = ""
    fingerprint: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    started: int = 0
    at: str = ""

    def here(self) -> Presence:
        """Return the presence of this process, now."""
        pid = os.getpid()
        now = datetime.now(UTC).isoformat()
        host = socket.gethostname()
        return replace(self, host=host, machine=this_machine_now(), pid=pid, started=started_at(pid), at=now)

    def alive(self, now: datetime) -> bool:
        """Return whether its driver lives, as far as this process can know.

        Args:
            now: The time, to compare with the last sign of a driver on another machine.
        """
        if self.machine and self.machine == this_machine_now():
            return not has_ended(self.machine, self.pid, self.started)
        return (now - datetime.fromisoformat(self.at)).total_seconds() < SILENT_SECONDS

    def as_record(self, now: datetime) -> RunRecord:
        """Return the record of a run that has left no other: it is running, or lost."""
        alive = self.alive(now)
        error = "" if alive else f"its driver (process {self.pid} on {self.host}) is gone; last sign of life {self.at}"
        return RunRecord(
            run_id=self.run_id,
            attempts=self.attempt,
            status="running" if alive else "lost",
            trainer=self.trainer,
            error=error,
            job=self.described,
        )


class SignOfLife:
    """Leaves a sign every so many seconds, on a thread of its own, while the context lasts.

    The first sign of an attempt stays for as long as the driver makes it: of two drivers that make the same attempt,
    the second finds it.

    Args:
        store: Where.
        every_s: Seconds between signs.
    """

    def __init__(self, store: ArtifactStore, every_s: float = EVERY_SECONDS) -> None:
        self._store, self._every_s = store, every_s
        self._lock = threading.Lock()
        self._presence: Presence | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._left: list[str] = []
        self._stale: StaleAttemptError | None = None

    def show(self, presence: Presence) -> None:
        """Fence older attempts, leave a sign now and keep leaving it. Called for each attempt.

        Raises:
            StaleAttemptError: Another driver makes this attempt, or a newer one.
            ArtifactError: The store refuses it.
        """
        with self._lock:
            # Not without the lock: a sign of the attempt before, left right after, would find itself taken over.
            self._store.fence(presence.run_id, presence.attempt)
            self._presence, self._number, self._left = presence, 0, []
            try:
                self._leave()
            except ArtifactExistsError as error:
                asked, found = f"resuming run {presence.run_id!r}", f"another driver makes attempt {presence.attempt}"
                raise StaleAttemptError(asked, found, "Wait for it, or resume once more to take over.") from error
            for attempt, _, sign in _signs(self._store, presence.run_id):
                if attempt <= presence.attempt and sign not in self._left:
                    self._store.delete(sign)
        if self._thread is None:
            self._thread = threading.Thread(target=self._repeat, name="shardfit-presence", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise if another driver has taken the run over.

        Raises:
            StaleAttemptError: It has.
        """
        if self._stale is not None:
            raise self._stale

    def end(self, *, keep: bool = False) -> None:
        """Leave no more signs. May be called twice.

        Args:
            keep: Whether the last sign stays: where there is no record, it is all that `resume_run` can go by.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._stale is None and not keep:
            for sign in self._left:
                with contextlib.suppress(ArtifactError):
                    self._store.delete(sign)
        self._left = []

    def _repeat(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                with self._lock:
                    self._leave()
            except StaleAttemptError as error:
                self._stale = error
                return
            except ArtifactError as error:
                # The store may come back, and training goes on meanwhile.
                logger.warning("no sign of life: %s", error)

    def _leave(self) -> None:
        assert self._presence is not None
        presence = self._presence.here()
        artifact = f"run/{presence.run_id}/alive-{presence.attempt}-{self._number}"
        content = json.dumps(asdict(presence), allow_nan=False, default=str).encode()
        self._number += 1
        self._store.put(artifact, {_FILE: content}, {}, presence.attempt)
        self._left.append(artifact)
        while len(self._left) > _FIRST_AND_LAST:
            self._store.delete(self._left[1])
            del self._left[1]


def find_presence(store: ArtifactStore, run_id: str) -> Presence | None:
    """Return the last sign of life of a run, or None where there is none."""
    for _ in range(_LOOKS):
        for _, _, artifact in reversed(_signs(store, run_id)):
            try:
                return _read(store, artifact)
            except ArtifactNotFoundError:
                # The next one has taken its place.
                break
            except ArtifactCorruptError as error:
                logger.warning("passing over %s: %s", store.address(artifact), error)
        else:
            return None
    return None


def list_runs(store: ArtifactStore, now: datetime) -> Iterator[RunRecord]:
    """Yield what is known of the runs of a store, the oldest first: records, and runs that are going on or are lost.

    Args:
        store: Where.
        now: The time, as for `Presence.alive`.
    """
    ids = {artifact.split("/")[1] for artifact in store.list("run/") if "/alive-" in artifact}
    presences = {run_id: found for run_id in ids if (found := find_presence(store, run_id)) is not None}
    records = {record.run_id: record for record in list_records(store)}
    for run_id in sorted({*presences, *records}):
        record, presence = records.get(run_id), presences.get(run_id)
        if presence is not None and (record is None or record.attempts < presence.attempt):
            yield presence.as_record(now)
        elif record is not None:
            yield record


def _read(store: ArtifactStore, artifact: str) -> Presence:
    try:
        content = json.loads(store.read(artifact, _FILE))
        known = {item.name for item in fields(Presence)}
        presence = Presence(**{name: value for name, value in content.items() if name in known})
        if datetime.fromisoformat(presence.at).tzinfo is None or type(presence.pid) is not int:
            raise ValueError(f"at is {presence.at!r}, pid {presence.pid!r}")
        return presence
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactCorruptError(f"reading {artifact!r}", f"it is torn or altered: {error!r}") from error


def _signs(store: ArtifactStore, run_id: str) -> list[tuple[int, int, str]]:
    """Return attempt, number and identifier of the signs of a run, in order."""
    found = [(_SIGN.fullmatch(artifact), artifact) for artifact in store.list(f"run/{run_id}/alive-")]
    return sorted((int(sign[1]), int(sign[2]), artifact) for sign, artifact in found if sign)

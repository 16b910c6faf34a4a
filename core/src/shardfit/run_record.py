"""What a run leaves behind, however it ended: enough to understand it, and to do it again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from shardfit.artifacts import ArtifactStore
from shardfit.errors import ArtifactCorruptError, ArtifactExistsError, ArtifactNotFoundError
from shardfit.plain_values import plain_value
from shardfit.redaction import redact

logger = logging.getLogger(__name__)

Status = Literal["finished", "failed", "cancelled", "running", "lost"]

_FORMAT = 1
_FILE = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run leaves behind. Holds no secret and nothing that JSON cannot hold.

    Args:
        run_id: Identifier; begins with the time of the start in UTC, so that records sort by it.
        attempts: Number of attempts, 1 if no worker was lost.
        status: How it ended; `running` and `lost` are what `list_runs` says of a run that has left no record.
        error: The message of the error, secrets redacted; empty where there was none.
        trainer: Name of the trainer.
        job: `Job.describe()`: what was asked for.
        versions: Distribution -> version: Python, shardfit, the plugin, libraries.
        plan: `RunPlan.to_dict()` of the last attempt: digests of the shard plans, layout and reasons; empty if none
            was made.
        warnings: What the user should know.
        metrics: `"<dataset>-<metric>"` -> value after each round.
        best_round: Last round that the model predicts with, or None for all.
        coverage: Dataset name -> digest of the rows that were used, as text.
        phases: Phase -> seconds.
        peak_memory: Phase of the workers -> most bytes that any of them had; `plan` has what was planned.
        bins: `BinsKept`, `BinsTaken`, `BinsRejected` -> how often; see the events of these names.
        model_address: Where the model is published, or empty.
        resume: What `resume_run` goes on from: the fields of a `Presence`; empty where no plan was ever made.
    """

    run_id: str
    attempts: int
    status: Status
    trainer: str
    error: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_round: int | None = None
    coverage: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_memory: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[str, int] = field(default_factory=dict)
    model_address: str = ""
    resume: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as JSON; `from_json` gives an equal record but for tuples, which become lists."""
        content = plain_value({"format": _FORMAT, **asdict(self), "error": redact(self.error)})
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> RunRecord:
        """Return the record that `to_json` wrote.

        Raises:
            ArtifactCorruptError: It is torn, or of another format.
        """
        asked = "reading a run record"
        try:
            content: dict[str, Any] = json.loads(text)
            if (found := content.pop("format")) != _FORMAT:
                raise ArtifactCorruptError(asked, f"found format {found!r}", f"This version reads {_FORMAT}.")
            if content["status"] not in get_args(Status):
                raise ArtifactCorruptError(asked, f"found status {content['status']!r}")
            # JSON has no nan; it is written as text.
            content["metrics"] = {name: [float(v) for v in values] for name, values in content["metrics"].items()}
            # Fields that a later version adds mean nothing to this one.
            known = {item.name for item in fields(cls)}
            return cls(**{name: value for name, value in content.items() if name in known})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactCorruptError(asked, f"it is torn or altered: {error!r}") from error

    @property
    def final_metrics(self) -> Mapping[str, float]:
        """The value of each metric in the best round, or in the last one where there is no best."""
        return metrics_at(self.best_round, self.metrics)


def metrics_at(best_round: int | None, metrics: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the value of each metric in one round.

    Args:
        best_round: The round; None for the last one.
        metrics: Name -> value after each round.
    """
    at = -1 if best_round is None else best_round
    return {name: values[at] if at < len(values) else values[-1] for name, values in metrics.items() if values}


def new_run_id(now: datetime, entropy: bytes) -> str:
    """Return an identifier that sorts by time and is unique as far as `entropy` is.

    Args:
        now: An aware time; written in UTC, to the microsecond, since short runs may begin in one second.
        entropy: At least four bytes.

    Raises:
        ValueError: `now` has no time zone, or there is too little entropy.
    """
    if now.tzinfo is None or len(entropy) < 4:
        raise ValueError(f"an aware time and 4 bytes are needed, found {now!r} and {len(entropy)} bytes")
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S%f}-{entropy.hex()}"


def save_record(store: ArtifactStore, record: RunRecord) -> str:
    """Store a record and return its identifier.

    Raises:
        StaleAttemptError: A driver of a newer attempt has taken over; its record stays as it is.
        ArtifactError: The store refuses it.
    """
    artifact = f"run/{record.run_id}/record"
    content = artifact, {_FILE: record.to_json().encode()}, {"status": record.status}, record.attempts
    try:
        store.put(*content)
    except ArtifactExistsError:
        # That of an earlier driver, whose run this one has resumed; one that was shut out does not come this far.
        store.delete(artifact)
        store.put(*content)
    return artifact


def record_of(store: ArtifactStore, run_id: str) -> RunRecord | None:
    """Return the record of a run, or None where it has left none.

    Raises:
        ArtifactCorruptError: It is torn, or of another format.
    """
    try:
        return RunRecord.from_json(store.read(f"run/{run_id}/record", _FILE))
    except ArtifactNotFoundError:
        return None


def list_records(store: ArtifactStore) -> Iterator[RunRecord]:
    """Yield the records of a store, the oldest first; one that cannot be read is logged and passed over."""
    for artifact in store.list("run/"):
        if not artifact.endswith("/record"):
            continue
        try:
            yield RunRecord.from_json(store.read(artifact, _FILE))
        except ArtifactNotFoundError:
            # Deleted since it was listed.
            continue
        except ArtifactCorruptError as error:
            logger.warning("passing over %s: %s", store.address(artifact), error)

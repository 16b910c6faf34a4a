"""What a run says of itself in its sign of life: its job, and what its data is recognised by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from shardfit.errors import ChangedDataError, InvalidJobError
from shardfit.job.portable import portable_job
from shardfit.presence import Presence
from shardfit.run_plan import RunPlan


def presence_of(plan: RunPlan, presence: Presence) -> Presence:
    """Return the presence of a run that has a plan.

    Args:
        plan: Of the first attempt of this driver.
        presence: Its id and attempt; of a run that is resumed, what it has said of itself before.

    Raises:
        ChangedDataError: The data is not what it was.
    """
    fingerprint = fingerprint_of(plan)
    if (expected := presence.fingerprint) and fingerprint != expected:
        raise ChangedDataError(
            f"resuming run {presence.run_id!r}",
            f"its data is not what it was: fingerprint {fingerprint[:12]}, then {expected[:12]}",
            "Files that were written anew are other files; train from the start.",
        )
    job, why_not = {}, ""
    try:
        job = portable_job(plan.job)
    except InvalidJobError as error:
        why_not = str(error)
    return replace(
        presence,
        trainer=plan.job.trainer,
        described=plan.job.describe(),
        job=job,
        why_no_job=why_not,
        fingerprint=fingerprint,
    )


def fingerprint_of(plan: RunPlan) -> str:
    """Return a digest of what every fragment of every dataset is recognised by; the same for any layout."""
    found = {
        name: [(piece.uri, piece.index, piece.rows, piece.version) for piece in dataset.fragments]
        for name, dataset in plan.datasets.items()
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

"""A job as values that another process, maybe on another machine, can make the same job of; nothing is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shardfit.connector import DataConnector
from shardfit.errors import InvalidJobError
from shardfit.job.job import Job
from shardfit.redaction import redact_options, redact_url


def portable_job(job: Job) -> dict[str, Any]:
    """Return a job as values that JSON holds and `job_from_portable` understands.

    Args:
        job: Its data must be named by paths or URLs, its parameters must be plain values.

    Raises:
        InvalidJobError: A part lives in this process only, or is secret and so must not be written down; says which.
    """
    fields = {name: getattr(job, name) for name in Job.model_fields}
    fields["data"] = _portable_data(job.data, "data")
    fields["evals"] = {name: _portable_data(data, f"evals.{name}") for name, data in job.evals.items()}
    fields["columns"] = {name: value for name, value in asdict(job.columns).items() if value}
    # Another machine that shares the stage may find it elsewhere: whoever resumes says where it is.
    del fields["stage"]
    portable: dict[str, Any] = json.loads(_plain("params", fields["params"], fields))
    return portable


def job_from_portable(content: Mapping[str, Any], stage: str | None) -> Job:
    """Return the job that `portable_job` described.

    Args:
        content: What that returned.
        stage: Location of its store, None for the user's own.
    """
    return Job(**content, stage=stage)


def _portable_data(data: DataConnector, key: str) -> dict[str, Any]:
    paths = data.data if isinstance(data.data, list) else [data.data]
    if not all(isinstance(path, str) for path in paths):
        raise _not_portable(key, "the data is in memory", "Write it to files, or resume from the program that has it.")
    texts = [str(path) for path in paths]
    if any(redact_url(path) != path for path in texts) or redact_options(data.options) != dict(data.options):
        raise _not_portable(key, "it needs secrets, which are not written down", "Resume with the job itself.")
    _plain(f"{key}.options", data.options, data.options)
    absolute = [path if "://" in path else os.fspath(Path(path).absolute()) for path in texts]
    described = {"path": absolute if isinstance(data.data, list) else absolute[0], "options": dict(data.options)}
    return {**described, "format": data.source} if data.source else described


def _plain(key: str, checked: Any, written: Any) -> str:
    try:
        if redact_options(checked) != checked:
            raise _not_portable(key, "it holds secrets, which are not written down", "Resume with the job itself.")
        return json.dumps(written)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidJobError):
            raise
        advice = "Resume from the program that has it: resume_run(run_id, job=job)."
        raise _not_portable(key, f"it holds what JSON cannot: {error}", advice) from error


def _not_portable(key: str, found: str, advice: str) -> InvalidJobError:
    return InvalidJobError(f"writing down the key {key!r} of a job", found, advice)

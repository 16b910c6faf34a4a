"""What pydantic found wrong with a job, as one error that points at the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shardfit.errors import InvalidJobError
from shardfit.names import nearest
from shardfit.redaction import redact, redact_options

_LONGEST = 120


def invalid_job(error: ValidationError, job: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> InvalidJobError:
    """Return the error to raise instead: every key with what was found there.

    Args:
        error: What pydantic raised.
        job: The model of a job.
        tables: Key of a job -> the model of the tables below it.
    """
    problems = [_problem(detail, job, tables) for detail in error.errors(include_url=False)]
    keys = ", ".join(dict.fromkeys(repr(key) for key, _, _ in problems))
    found = "; ".join(found if len(problems) == 1 else f"{key}: {found}" for key, found, _ in problems)
    advice = " ".join(dict.fromkeys(advice for _, _, advice in problems if advice))
    return InvalidJobError(f"key {keys}" if len(problems) == 1 else f"keys {keys}", found, advice)


def _problem(detail: ErrorDetails, job: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> tuple[str, str, str]:
    path = detail["loc"]
    key = ".".join(str(part) for part in path)
    if detail["type"] == "extra_forbidden":
        known = sorted((job if len(path) == 1 else tables[str(path[0])]).model_fields)
        near = nearest(str(path[-1]), known)
        return key, "there is no such key", f"Did you mean {near!r}?" if near else f"There is: {', '.join(known)}."
    if detail["type"] == "missing":
        return key, "it is needed and missing", ""
    message = str(detail.get("ctx", {}).get("error", detail["msg"])).replace("Input should", "It should")
    return key, f"found {_show(str(path[-1]), detail['input'])}", _sentence(message)


def _show(name: str, value: Any) -> str:
    shown = redact(repr(redact_options({name: value})[name]))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:].rstrip('.')}."

"""What a service answers, turned into errors that say what to do, without a secret in them or in their causes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shardfit.errors import ArtifactError, InvalidArgumentError
from shardfit.redaction import HIDDEN, redact, redact_options

_LONGEST = 600
_SHORTEST_SECRET = 4
_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})|\(code: (\d{3})\)")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist|NoSuchContainer", re.IGNORECASE)
_FULL = re.compile(r"no space left|InsufficientStorage|QuotaExceeded|disk full|status code: 507", re.IGNORECASE)
_READ_ONLY = re.compile(r"read.?only", re.IGNORECASE)

Scrub = Callable[[str], str]


class ServiceError(ArtifactError):
    """A service did not do what was asked, and may do it later: it failed, or cannot be reached."""


class ObjectMissingError(ArtifactError, FileNotFoundError):
    """There is no object under the key."""


class ObjectExistsError(ArtifactError, FileExistsError):
    """There is an object under the key already."""


def scrubber(options: Mapping[str, Any]) -> Scrub:
    """Return a function that takes the values of options that look secret, and secrets in URLs, out of a text."""
    hidden = redact_options(options)
    secrets = sorted(
        (str(value) for key, value in options.items() if hidden[key] == HIDDEN and len(str(value)) >= _SHORTEST_SECRET),
        key=len,
        reverse=True,
    )

    def scrub(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return redact(text)

    return scrub


@contextmanager
def translating(asked: str, scrub: Scrub) -> Iterator[None]:
    """Turn what obstore raises into `ArtifactError`, its cause shortened and without secrets.

    Args:
        asked: What is being done.
        scrub: Takes secrets out of a text.
    """
    import obstore.exceptions

    try:
        yield
    except (obstore.exceptions.BaseError, FileNotFoundError, ValueError) as error:
        if isinstance(error, ArtifactError | InvalidArgumentError):
            raise
        message = scrub(str(error))
        translated = _translated(asked, error, message)
        # A trace, or whoever follows causes and contexts, shows this one's message too.
        error.args = (message[:_LONGEST],)
        raise translated from error


def _translated(asked: str, error: Exception, message: str) -> Exception:
    import obstore.exceptions as raised

    first = message.partition("\n\nDebug source")[0].strip()[:_LONGEST]
    status = next((int(group) for found in _STATUS.finditer(message) for group in found.groups() if group), 0)
    if isinstance(error, raised.UnknownConfigurationKeyError | raised.InvalidPathError):
        return InvalidArgumentError(asked, first, "Look up the option in docs/stages_services.md.")
    if _NO_BUCKET.search(message):
        return ArtifactError(asked, first, "The bucket or container does not exist: make it, or correct the URL.")
    if isinstance(error, raised.AlreadyExistsError | raised.PreconditionError):
        return ObjectExistsError(asked, first)
    if isinstance(error, FileNotFoundError):
        return ObjectMissingError(asked, first)
    if isinstance(error, raised.PermissionDeniedError | raised.UnauthenticatedError) or status in (401, 403):
        advice = "Are the credentials right, and may they do this? `shardfit stage check` tries each right."
        return ArtifactError(asked, first, advice)
    if _FULL.search(message):
        return ArtifactError(asked, first, "The service is full: make room, then put again; nothing is lost.")
    if _READ_ONLY.search(message):
        return ArtifactError(asked, first, "The stage is read-only: choose another, or ask for write access.")
    if isinstance(error, ValueError) or (400 <= status < 500 and status not in (408, 425, 429)):
        return ArtifactError(asked, first, "The service refuses it.")
    return ServiceError(asked, first, "The service fails, is full, or cannot be reached; try again later.")

"""Which opener gets a location or an object: the highest claim, whatever the order of installation."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shardfit.errors import InvalidArgumentError, PluginError
from shardfit.redaction import redact, redact_url
from shardfit.source import Claim

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that a plugin provides.

    Args:
        name: The name that it is provided under.
        owner: Name of the plugin.
        provided: The thing itself.
    """

    name: str
    owner: str
    provided: Any

    def __str__(self) -> str:
        return f"{self.name!r} (plugin {self.owner!r})"


def choose(kind: str, asked: object, candidates: Iterable[Candidate], trace: Callable[[str], None]) -> Candidate:
    """Return the candidate whose opener has the highest claim on `asked`.

    An opener that raises is logged and passed over.

    Args:
        kind: `sources` or `artifact_stores`, for messages.
        asked: What is to be opened.
        candidates: The openers.
        trace: Receives a line for each answer.

    Raises:
        InvalidArgumentError: None claims it.
        PluginError: Two claim it equally.
    """
    ordered = sorted(candidates, key=lambda candidate: (candidate.name, candidate.owner))
    claims: list[tuple[Claim, Candidate]] = []
    failures: list[str] = []
    for candidate in ordered:
        try:
            claim = _ask(candidate, asked)
        except Exception as error:  # noqa: BLE001 - a stranger's opener takes no other down
            failures.append(f"{candidate} raised {type(error).__name__}")
            trace_back = redact(traceback.format_exc())
            logger.warning("%s raised when asked about %s; it is passed over\n%s", candidate, show(asked), trace_back)
            continue
        trace(f"{kind}: {candidate} claims {show(asked)}: {claim}")
        if claim is not None:
            claims.append((claim, candidate))
    if not claims:
        raise _unclaimed(kind, asked, ordered, failures)
    highest = max(claim.priority for claim, _ in claims)
    winners = [(claim, candidate) for claim, candidate in claims if claim.priority == highest]
    if len(winners) > 1:
        found = " and ".join(
            f"{candidate} ({claim.reason})" if claim.reason else f"{candidate}" for claim, candidate in winners
        )
        raise PluginError(f"opening {show(asked)}", f"{found} claim it equally", "Force one by its name.")
    return winners[0][1]


def show(asked: object) -> str:
    """Return what is to be opened for messages: paths and URLs redacted, anything else by its type."""
    if isinstance(asked, (str, os.PathLike)):
        return repr(redact_url(os.fspath(asked)))
    if isinstance(asked, (list, tuple)):
        shown = ", ".join(show(item) for item in asked[:3])
        return f"[{shown}, ... {len(asked)} in all]" if len(asked) > 3 else f"[{shown}]"
    return f"an object of type {type(asked).__module__}.{type(asked).__qualname__}"


def _ask(candidate: Candidate, asked: object) -> Claim | None:
    claim = candidate.provided.claims(asked)
    if claim is not None and not isinstance(claim, Claim):
        raise TypeError(f"claims() returned {claim!r} where a Claim or None is due")
    return claim


def _unclaimed(
    kind: str, asked: object, candidates: Iterable[Candidate], failures: Iterable[str]
) -> InvalidArgumentError:
    names = ", ".join(sorted({repr(candidate.name) for candidate in candidates})) or "none"
    what = kind.replace("_", " ")
    found = "; ".join([f"none of the {what} claims it", *failures])
    return InvalidArgumentError(f"opening {show(asked)}", found, f"There is: {names}. Name one, or install a plugin.")

"""What a stage lets its user do, found out by doing it: for `shardfit stage check`."""

from __future__ import annotations

from dataclasses import dataclass

from shardfit.artifacts import ArtifactStore


@dataclass(frozen=True, slots=True)
class CheckedRight:
    """One right that was tried.

    Args:
        right: `write`, `read`, `list`, `create if absent` or `delete`.
        granted: Whether it worked.
        advice: What it means where it did not, and what to do; empty where it did.
    """

    right: str
    granted: bool
    advice: str = ""


def check_store(store: ArtifactStore) -> tuple[CheckedRight, ...]:
    """Try each right with a small object that is removed again.

    Args:
        store: Local or remote.
    """
    raise NotImplementedError

"""`get_context()`: the context of the loop that this process runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardfit.errors import InvalidArgumentError

if TYPE_CHECKING:
    from shardfit_pytorch.context import TrainingContext

_current: TrainingContext | None = None
_entering = threading.Lock()


def get_context() -> TrainingContext:
    """Return the context of the loop that this process runs.

    Raises:
        InvalidArgumentError: It runs none; says how to be inside a run.
    """
    if _current is None:
        raise InvalidArgumentError(
            "asking for the context of a run",
            "this process is not inside one",
            "Call get_context() in the function that is passed as PyTorchDistributor(train_func), while it runs.",
        )
    return _current


@contextmanager
def current(context: TrainingContext) -> Iterator[None]:
    """Make `context` what `get_context` returns in this process, while the context manager lasts.

    Raises:
        InvalidArgumentError: Another loop runs in this process.
    """
    global _current
    with _entering:
        if _current is not None:
            raise InvalidArgumentError(
                "running a loop in this process", "another one is running", "Run one after the other."
            )
        _current = context
    try:
        yield
    finally:
        _current = None

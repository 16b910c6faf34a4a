"""Ctrl-C while a library calls back from C: where Python could only print an interrupt, it is held until it can act."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from shardfit.errors import RunCancelledError


class HeldInterrupt:
    """Holds Ctrl-C back while the context lasts, and lets it act at its end.

    An exception that leaves a callback from C is printed and forgotten, and the library goes on with what it has. So
    what callbacks do stands within `callback`, whose error libraries pass on as any other; the interrupt comes after.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._raised: KeyboardInterrupt | None = None
        self._previous: Any = None

    @contextmanager
    def callback(self) -> Iterator[None]:
        """Stand around what a callback does, on any thread.

        Raises:
            RunCancelledError: There was an interrupt, before or meanwhile.
        """
        if not self._pressed:
            try:
                yield
                return
            except KeyboardInterrupt as error:
                self._raised = error
        raise RunCancelledError("reading rows", "the run was interrupted") from self._raised

    def __enter__(self) -> Self:
        # Python runs handlers on the main thread only, and what is no function ends the process without Python.
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._previous = signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._raised is not None:
            raise self._raised
        if self._pressed:
            self._previous(signal.SIGINT, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True

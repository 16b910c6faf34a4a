"""What a worker tells the driver, sent from a thread of its own: the loop never waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Outbox:
    """Carries out sendings in order, while the loop goes on.

    A sending that is replaceable, a checkpoint, is dropped if another one comes before its turn: at most one is under
    way and one waits, so that a slow stage costs neither time nor memory.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], None], bool]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="shardfit-outbox", daemon=True)
        self._thread.start()

    def send(self, sending: Callable[[], None], replaceable: bool = False) -> None:
        """Have something sent, soon; returns at once.

        Args:
            sending: Called on the outbox's thread.
            replaceable: Whether the next replaceable one makes it superfluous.

        Raises:
            BaseException: What an earlier sending raised.
        """
        self.check()
        with self._changed:
            if replaceable:
                self._waiting = deque(entry for entry in self._waiting if not entry[1])
            self._waiting.append((sending, replaceable))
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what a sending raised, if one did."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until everything is sent.

        Raises:
            BaseException: What a sending raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not (self._waiting or self._busy))
        self.check()

    def close(self) -> None:
        """End the thread, once it has sent what it is sending; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if self._closed:
                    return
                sending, _ = self._waiting.popleft()
                self._busy = True
            try:
                sending()
            except BaseException as error:  # noqa: BLE001 - raised on the loop's thread
                self._error = error
            with self._changed:
                self._busy = False
                self._closed = self._closed or self._error is not None
                self._changed.notify_all()

"""Decoding the next item while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from shardfit.errors import InvalidArgumentError

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item]:
    """Yield `items` in order; a thread prepares up to `depth` of them ahead.

    The thread has ended when this generator has: at the end, on an error, and when it is closed early. So has `items`,
    which is closed by the thread if it can be.

    Args:
        items: Consumed by the thread alone.
        depth: 1 or more.

    Raises:
        InvalidArgumentError: `depth` is less than 1.
        Exception: Whatever `items` raised, after the items before it.
    """
    if depth < 1:
        raise InvalidArgumentError("reading ahead", f"depth is {depth!r}", "It must be 1 or more.")
    producer = _Producer(items, depth)
    thread = threading.Thread(target=producer.run, name="shardfit-read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := producer.buffer.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.closed.set()
        thread.join()


class _End:
    """What the producer leaves last: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(Generic[Item]):
    """What the thread runs."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.buffer: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
        self.closed = threading.Event()
        self._items = items

    def run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._offer(_End(error))
        else:
            self._offer(_End(None))

    def _produce(self) -> None:
        try:
            for item in self._items:
                self._offer(item)
                if self.closed.is_set():
                    return
        finally:
            # A generator left hanging would hold its file open until it is collected.
            if (close := getattr(self._items, "close", None)) is not None:
                close()

    def _offer(self, item: Item | _End) -> None:
        while not self.closed.is_set():
            try:
                self.buffer.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

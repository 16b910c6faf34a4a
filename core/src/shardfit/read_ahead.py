"""Decoding the next item while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from shardfit.errors import InvalidArgumentError

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item]:
    """Yield `items` in order; a thread prepares up to `depth` of them ahead, and none beyond.

    So there are at most `depth` items beside the one that was yielded last, the one that is being made among them. With
    1 the thread rests from when it has made one until that is taken; with 2 it goes on.

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
            producer.places.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.closed.set()
        producer.places.release()
        thread.join()


class _End:
    """What the producer leaves last: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(Generic[Item]):
    """What the thread runs."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.buffer: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        self.places = threading.Semaphore(depth)
        self.closed = threading.Event()
        self._items = items

    def run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self.buffer.put(_End(error))
        else:
            self.buffer.put(_End(None))

    def _produce(self) -> None:
        try:
            # A place before the item: one that is made and waits for a place would be one more in memory.
            while self._has_place():
                self.buffer.put(next(self._items))
        except StopIteration:
            return
        finally:
            # A generator left hanging would hold its file open until it is collected.
            if (close := getattr(self._items, "close", None)) is not None:
                close()

    def _has_place(self) -> bool:
        """Wait for a place; return whether there is one, or False once the consumer has closed."""
        self.places.acquire()
        return not self.closed.is_set()

"""LightGBM's network, carried by shardfit's collectives: no ports of its own, no waiting for hours, held by key.

LightGBM asks for two things: blocks of bytes that every worker gets from all, and blocks that are combined by a
function of its own. Blocks are combined in the order of the ranks, so that sums are the same in every run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.collectives.contract import Call, Collectives
from shardfit.errors import WorkerError
from shardfit_lightgbm.library import NetworkFunctions

Bytes = npt.NDArray[np.uint8]


class LibraryNetwork:
    """What LightGBM calls; made by `library_network`.

    LightGBM cannot be told that a call failed. The failure is kept, every later call gives zeros at once, with which
    no tree grows, and `check` raises it as soon as LightGBM is done.

    Args:
        peers: Carries the bytes.
    """

    def __init__(self, peers: Collectives) -> None:
        self._peers = peers
        self._failure: BaseException | None = None
        self.exchanges = 0

    def check(self) -> None:
        """Raise what went wrong in a call that LightGBM made."""
        if self._failure is not None:
            raise self._failure

    def reduce_scatter(
        self,
        given: int,
        given_bytes: int,
        element_bytes: int,
        starts: Any,
        lengths: Any,
        blocks: int,
        result: int,
        result_bytes: int,
        reduce: Any,
    ) -> None:
        """Give every worker one block, combined over all of them."""
        mine = _bytes_at(given, given_bytes)
        payloads = [mine[starts[i] : starts[i] + lengths[i]] for i in range(blocks)]
        with self._keeping_failures(result, result_bytes):
            received = self._exchange(Call("lightgbm reduce-scatter", str(element_bytes)), payloads)
            combined = received[0].copy()
            for part in received[1:]:
                reduce[0](part.ctypes.data, combined.ctypes.data, element_bytes, len(combined))
            ctypes.memmove(result, combined.ctypes.data, len(combined))

    def allgather(
        self, given: int, given_bytes: int, starts: Any, lengths: Any, blocks: int, result: int, result_bytes: int
    ) -> None:
        """Give every worker the blocks of all."""
        with self._keeping_failures(result, result_bytes):
            received = self._exchange(Call("lightgbm allgather"), [_bytes_at(given, given_bytes)] * blocks)
            for i, part in enumerate(received):
                ctypes.memmove(result + starts[i], part.ctypes.data, len(part))

    @contextmanager
    def _keeping_failures(self, result: int, result_bytes: int) -> Iterator[None]:
        """Stand around a call: an error, or Ctrl-C, is kept for `check`, and LightGBM gets zeros from then on."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised by `check`, outside of LightGBM
            # The first one is the reason of the others.
            self._failure = self._failure or error
            ctypes.memset(result, 0, result_bytes)

    def _exchange(self, call: Call, payloads: Sequence[Bytes]) -> list[Bytes]:
        self.check()
        self.exchanges += 1
        answers = self._peers.exchange(call, payloads)
        for rank, (theirs, _) in enumerate(answers):
            if (theirs.name, theirs.detail) != (call.name, call.detail):
                raise WorkerError(
                    f"training with LightGBM on worker {self._peers.rank}",
                    f"it asks for {call}, worker {rank} for {theirs}",
                    "They do not train the same model; callbacks must not depend on the rank.",
                )
        return [np.frombuffer(payload, dtype=np.uint8) for _, payload in answers]


@contextmanager
def library_network(peers: Collectives) -> Iterator[LibraryNetwork]:
    """Let LightGBM in this thread work with its peers while the context lasts.

    Args:
        peers: Two or more, one call of this on each.
    """
    network = LibraryNetwork(peers)
    with NetworkFunctions(peers.world_size, peers.rank, network.reduce_scatter, network.allgather):
        yield network


def _bytes_at(address: int | None, size: int) -> Bytes:
    if not size or address is None:
        return np.empty(0, dtype=np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


__all__ = ["LibraryNetwork", "library_network"]

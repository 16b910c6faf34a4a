"""Arrays that all workers of an attempt add up, hand round and wait for: for trainers whose library has no such calls.

In `Trainer.rendezvous`, on the driver, return `shardfit.collectives.meeting_point(workers)`. In `Trainer.run_worker`,
on every worker:

    with context.join(meeting) as peers:
        total = peers.allreduce(mine)

What every worker gets is the same, bit for bit, and the same in every run: parts are added in the order of the ranks.
A sum of floats still depends on how the rows were divided; `exact_sum` does not. Every worker makes the same calls in
the same order. Arrays flow between the workers directly; the driver only introduces them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, WorkerError
from shardfit.exact_sum import LIMBS, exact_parts, exact_total

Operation: TypeAlias = Literal["sum", "max", "min"]

_OPERATIONS: Mapping[str, Any] = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True, slots=True)
class Call:
    """What a worker calls, as its peers see it.

    Args:
        name: Name of the method.
        detail: The operation, or the root.
        dtype: NumPy's name of the type, little-endian.
        shape: Of the array.
    """

    name: str
    detail: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = f"{self.name}({self.detail})"
        return f"{what} of shape {self.shape!r} and type {np.dtype(self.dtype).name}" if self.dtype else what


class Collectives(ABC):
    """Calls that all workers make together, from one thread each.

    Args:
        rank: 0 to world_size - 1.
        world_size: Number of workers.

    Every call raises, on every worker and naming a rank, where it cannot be completed:

    * `InvalidArgumentError`: the arrays differ in shape or type between workers, or cannot be sent.
    * `WorkerError`: a peer made another call, or has made its last one; or did not come in time.
    * `WorkerLostError`: a peer failed or died. Let it pass: engines report what ended the peer instead.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size

    def allreduce(self, array: npt.ArrayLike, op: Operation = "sum") -> npt.NDArray[Any]:
        """Return the elementwise sum, maximum or minimum over all workers; shape and type of `array`.

        Args:
            array: Numbers, any shape, the same shape and type on every worker. Not changed.
            op: How to combine. Integers wrap around where they overflow, as NumPy's do.
        """
        if op not in _OPERATIONS:
            raise InvalidArgumentError("calling allreduce", f"found op={op!r}", "Use 'sum', 'max' or 'min'.")
        values = _sendable(array, "allreduce", "iuf" if op == "sum" else "iufb")
        call = Call("allreduce", op, values.dtype.str, values.shape)
        flat = values.reshape(-1)
        # Each worker combines one part for all, so that nobody receives more than two arrays' worth.
        ends = [len(flat) * rank // self.world_size for rank in range(self.world_size + 1)]
        parts = self._swap(call, [flat[start:stop] for start, stop in pairwise(ends)])
        combined = parts[0].copy()
        for part in parts[1:]:
            _OPERATIONS[op](combined, part, out=combined)
        whole = np.concatenate(self._swap(call, [combined] * self.world_size))
        return whole.astype(values.dtype.newbyteorder("="), copy=False).reshape(values.shape)

    def broadcast(self, array: npt.ArrayLike | None, root: int = 0) -> npt.NDArray[Any]:
        """Return the array of one worker, on all.

        Args:
            array: On the root, what to send; on the others it does not count and may be None.
            root: Rank of the worker that sends.
        """
        if not 0 <= root < self.world_size:
            found = f"found root={root!r} with {self.world_size} workers"
            raise InvalidArgumentError("calling broadcast", found, f"Use 0 to {self.world_size - 1}.")
        nothing = np.empty(0, dtype=np.uint8)
        values = _sendable(array, "broadcast") if self.rank == root else nothing
        call = Call("broadcast", f"root {root}", values.dtype.str, values.shape)
        answers = self.exchange(call, [values.reshape(-1)] * self.world_size)
        _check_same(call, self.rank, answers, ("name", "detail"))
        return _array_of(*answers[root]).reshape(answers[root][0].shape)

    def allgather(self, array: npt.ArrayLike) -> list[npt.NDArray[Any]]:
        """Return the arrays of all workers, by rank; shapes and types may differ."""
        values = _sendable(array, "allgather")
        call = Call("allgather", "", values.dtype.str, values.shape)
        answers = self.exchange(call, [values.reshape(-1)] * self.world_size)
        _check_same(call, self.rank, answers, ("name",))
        return [_array_of(theirs, payload).reshape(theirs.shape) for theirs, payload in answers]

    def barrier(self) -> None:
        """Wait until every worker is here."""
        call = Call("barrier")
        _check_same(call, self.rank, self.exchange(call, [np.empty(0, dtype=np.uint8)] * self.world_size), ("name",))

    def exact_sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sums over the rows of all workers, rounded once: the same bits for any number of workers.

        About 10 to 20 ns for each value. For rows that come in batches, see `exact_sums`.

        Args:
            values: Finite float64, shape [rows, ...]; only the number of rows may differ between workers.
        """
        rows = np.asarray(values, dtype=np.float64)
        if rows.ndim == 0:
            raise InvalidArgumentError("calling exact_sum", f"found the single value {rows!r}", "Pass [rows, ...].")
        count = int(np.prod(rows.shape[1:], dtype=np.int64))
        return self.exact_sums([list(rows.reshape(len(rows), count).T)], count).reshape(rows.shape[1:])

    def exact_sums(self, batches: Iterable[Sequence[npt.NDArray[np.float64]]], count: int) -> npt.NDArray[np.float64]:
        """Return several sums over the rows of all workers, as `exact_sum` does; float64, shape [count].

        Args:
            batches: For each batch its terms of each sum: finite float64, shape [rows]. A worker may have none.
            count: How many sums, on every worker.
        """
        parts = np.zeros((count, LIMBS), dtype=np.int64)
        for terms in batches:
            for mine, values in zip(parts, terms, strict=True):
                mine += exact_parts(values)
        return np.array([exact_total(total) for total in self.allreduce(parts)], dtype=np.float64)

    @abstractmethod
    def exchange(self, call: Call, payloads: Sequence[npt.NDArray[Any]]) -> list[tuple[Call, Any]]:
        """Send one payload to each worker and return theirs, by rank. Called on every worker at the same time.

        Args:
            call: Sent along, so that the peers can compare it with theirs.
            payloads: By rank; contiguous, one dimension. The one for this worker comes back as it is.

        Returns:
            For each rank its call and the bytes that it sent.
        """

    def _swap(self, call: Call, payloads: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        answers = self.exchange(call, payloads)
        _check_same(call, self.rank, answers, ("name", "detail", "dtype", "shape"))
        return [_array_of(theirs, payload) for theirs, payload in answers]


class SoleWorker(Collectives):
    """The collectives of one worker without peers: no sockets."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def exchange(self, call: Call, payloads: Sequence[npt.NDArray[Any]]) -> list[tuple[Call, Any]]:
        """Return what this worker sends itself."""
        return [(call, payloads[0])]


def _sendable(array: npt.ArrayLike | None, name: str, kinds: str = "iufb") -> npt.NDArray[Any]:
    values = np.asarray(array)
    if values.dtype.kind not in kinds:
        advice = "Sums need numbers: use astype(np.int64)." if values.dtype.kind == "b" else "Use an array of numbers."
        raise InvalidArgumentError(f"calling {name}", f"found an array of type {values.dtype}", advice)
    # Not `ascontiguousarray`, which gives a single number one dimension.
    return np.asarray(values, dtype=values.dtype.newbyteorder("<"), order="C")


def _array_of(call: Call, payload: Any) -> npt.NDArray[Any]:
    if isinstance(payload, np.ndarray):
        # This worker's own part, which belongs to the caller.
        return payload.astype(payload.dtype.newbyteorder("="))
    return np.frombuffer(payload, dtype=call.dtype) if len(payload) else np.empty(0, dtype=call.dtype)


def _check_same(mine: Call, rank: int, answers: Iterable[tuple[Call, Any]], fields: tuple[str, ...]) -> None:
    for other, (theirs, _) in enumerate(answers):
        if all(getattr(theirs, field) == getattr(mine, field) for field in fields):
            continue
        asked, found = f"calling {mine} on worker {rank}", f"worker {other} calls {theirs}"
        if theirs.name != mine.name:
            raise WorkerError(asked, found, "Every worker makes the same calls in the same order.")
        raise InvalidArgumentError(asked, found, "Shape, type and operation must be the same on every worker.")


__all__ = ["Call", "Collectives", "Operation", "SoleWorker"]

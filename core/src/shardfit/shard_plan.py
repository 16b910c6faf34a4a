"""Which worker reads which rows: a frozen plan that proves its own coverage when it is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardfit.errors import PlanError
from shardfit.groups import GroupIndex
from shardfit.source import Fragment

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class World:
    """How many workers share the data.

    Args:
        workers: 1 or more.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"World.workers must be 1 or more, found {self.workers!r}")


@dataclass(frozen=True, slots=True)
class FragmentSlice:
    """Rows `start` to `stop` (exclusive) of one fragment.

    Args:
        fragment: The fragment itself.
        fragment_index: Its position in the plan's list of fragments.
        start: First row within the fragment.
        stop: Row after the last one.
        first_row: Global row number of row `start`.
    """

    fragment: Fragment
    fragment_index: int
    start: int
    stop: int
    first_row: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Shard:
    """One worker's part of a plan: the slices it reads, in global row order. All that a worker is sent.

    Args:
        worker: 0 to workers - 1.
        slices: May be empty.
        total_rows: Rows of the whole dataset, over all workers.
    """

    worker: int
    slices: tuple[FragmentSlice, ...]
    total_rows: int

    @property
    def rows(self) -> int:
        """Number of rows of this shard."""
        return sum(piece.rows for piece in self.slices)

    @property
    def values(self) -> int:
        """About how many values a sparse column has in these rows; 0 where there is none, or this is not known."""
        return sum((part.fragment.values or 0) * part.rows // max(part.fragment.rows, 1) for part in self.slices)

    @property
    def values_per_row(self) -> int:
        """About how many values a sparse column has in each row, rounded up."""
        return -(-self.values // max(self.rows, 1))


@dataclass(frozen=True, slots=True)
class ShardingConstraints:
    """What a strategy must respect beside coverage.

    Args:
        group_index: Run lengths of the group column; whole groups stay together. None where there are no groups.
    """

    group_index: GroupIndex | None = None


class ShardingStrategy(Protocol):
    """A pure function from fragments to a plan. Called once for each dataset and attempt, on the driver.

    The same arguments give the same plan, everywhere. Returns a plan for at most `world.workers` workers: fewer when
    the data would leave some of them empty.

    Raises:
        PlanError: The constraints cannot be met.
    """

    def __call__(
        self, fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints
    ) -> ShardPlan:
        """Divide `fragments` over `world`."""


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """Which worker reads which rows of which fragments, in columns: O(fragments + workers) however many rows.

    Slice `i` is rows `slice_start[i]` to `slice_stop[i]` of fragment `slice_fragment[i]`; worker `w` reads slices
    `worker_offsets[w]` to `worker_offsets[w + 1]`. A plan that exists covers each row of each fragment exactly once.
    Two plans with the same digest are equal.

    Args:
        strategy: Name of the strategy that made it.
        fragment_rows: Rows of each fragment, in global row order; int64, shape [fragments].
        worker_offsets: int64, shape [workers + 1].
        slice_fragment: int64, shape [slices].
        slice_start: int64, shape [slices].
        slice_stop: int64, shape [slices].

    Raises:
        PlanError: A row is in no shard, or in two; a shard is not in global row order; one of several workers has no
            rows; or the columns do not fit each other.
    """

    strategy: str
    fragment_rows: Int64Array
    worker_offsets: Int64Array
    slice_fragment: Int64Array
    slice_start: Int64Array
    slice_stop: Int64Array

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, str):
            raise _broken(str(self.strategy), f"the name of the strategy is {self.strategy!r}")
        for name in _COLUMNS:
            object.__setattr__(self, name, _frozen_column(self.strategy, name, getattr(self, name)))
        self._check_columns()
        self._check_coverage()

    @property
    def workers(self) -> int:
        """Number of workers that have a shard."""
        return len(self.worker_offsets) - 1

    @property
    def rows(self) -> int:
        """Rows of the whole dataset."""
        return int(self.fragment_rows.sum())

    @cached_property
    def first_rows(self) -> Int64Array:
        """Global row number of the first row of each fragment; int64, shape [fragments]."""
        first_rows: Int64Array = np.cumsum(self.fragment_rows) - self.fragment_rows
        return first_rows

    @cached_property
    def worker_rows(self) -> Int64Array:
        """Rows of each worker; int64, shape [workers]."""
        ends = np.concatenate([[0], np.cumsum(self.slice_stop - self.slice_start)])
        rows: Int64Array = np.diff(ends[self.worker_offsets])
        return rows

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of the plan, as hexadecimal text."""
        sha = hashlib.sha256(self.strategy.encode())
        for name in _COLUMNS:
            column = getattr(self, name)
            sha.update(f"{name}:{len(column)}:".encode())
            sha.update(column.astype("<i8").tobytes())
        return sha.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardPlan) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[type[ShardPlan], tuple[Any, ...]]:
        # An array that is unpickled can be written to again, and a plan is a frozen value.
        return (type(self), (self.strategy, *(getattr(self, name) for name in _COLUMNS)))

    def shard(self, worker: int, fragments: Sequence[Fragment]) -> Shard:
        """Return one worker's part, with the fragments it needs.

        Args:
            worker: 0 to `workers` - 1; a number beyond gives an empty shard.
            fragments: The list that the plan was made from.

        Raises:
            PlanError: `fragments` is not the list that the plan was made from, or `worker` is negative.
        """
        if worker < 0:
            raise PlanError(f"taking shard {worker!r}", "workers are numbered from 0")
        if len(fragments) != len(self.fragment_rows):
            raise PlanError(
                f"taking shard {worker} of a plan over {len(self.fragment_rows)} fragments",
                f"found {len(fragments)} fragments",
                "Pass the list that the plan was made from.",
            )
        if worker >= self.workers:
            return Shard(worker, (), self.rows)
        first, last = self.worker_offsets[worker], self.worker_offsets[worker + 1]
        return Shard(worker, tuple(self._slices(int(first), int(last), fragments)), self.rows)

    def shards(self, fragments: Sequence[Fragment]) -> Iterator[Shard]:
        """Yield every worker's part in order."""
        return (self.shard(worker, fragments) for worker in range(self.workers))

    def to_json(self) -> str:
        """Return the plan as JSON; `from_json` gives an equal plan."""
        columns = {name: getattr(self, name).tolist() for name in _COLUMNS}
        return json.dumps({"strategy": self.strategy, **columns})

    @classmethod
    def from_json(cls, text: str) -> ShardPlan:
        """Return the plan that `to_json` wrote; its coverage is checked again.

        Raises:
            PlanError: The text is no plan, or the plan does not cover its rows.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
        except (TypeError, ValueError) as error:
            raise PlanError("reading a shard plan from JSON", str(error), "Pass what `to_json` wrote.") from error
        names = ["strategy", *_COLUMNS]
        if not isinstance(fields, dict) or sorted(fields) != sorted(names):
            raise PlanError(
                "reading a shard plan from JSON", f"it has not the keys {names!r}", "Pass what `to_json` wrote."
            )
        return cls(**fields)

    def _slices(self, first: int, last: int, fragments: Sequence[Fragment]) -> Iterator[FragmentSlice]:
        indices, starts = self.slice_fragment[first:last], self.slice_start[first:last]
        first_rows = (self.first_rows[indices] + starts).tolist()
        stops, planned = self.slice_stop[first:last].tolist(), self.fragment_rows[indices].tolist()
        columns = zip(indices.tolist(), starts.tolist(), stops, first_rows, planned, strict=True)
        for index, start, stop, first_row, rows in columns:
            if fragments[index].rows != rows:
                raise PlanError(
                    f"taking rows of {fragments[index]}",
                    f"it has {fragments[index].rows} rows and the plan counts {rows}",
                    "Pass the list that the plan was made from.",
                )
            yield FragmentSlice(fragments[index], index, start, stop, first_row)

    def _check_columns(self) -> None:
        offsets, slices = self.worker_offsets, len(self.slice_fragment)
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != slices or (np.diff(offsets) < 0).any():
            raise _broken(self.strategy, f"worker_offsets do not divide {slices} slices: {offsets!r}")
        if not len(self.slice_start) == len(self.slice_stop) == slices:
            raise _broken(self.strategy, "the slice columns differ in length")
        if (self.fragment_rows < 0).any():
            raise _broken(self.strategy, "a fragment has a negative number of rows")
        if self.fragment_rows.sum(dtype=np.float64) >= 2.0**63:
            raise _broken(self.strategy, "there are more rows than 64 bits can number")
        if slices and (self.slice_fragment.min() < 0 or self.slice_fragment.max() >= len(self.fragment_rows)):
            raise _broken(self.strategy, "a slice names a fragment that does not exist")
        if (self.slice_start >= self.slice_stop).any():
            raise _broken(self.strategy, "a slice is empty or runs backwards")
        if len(offsets) > 2 and (idle := np.flatnonzero(np.diff(offsets) == 0)).size:
            raise _broken(self.strategy, f"worker {idle[0]} of {len(offsets) - 1} has no rows", "Plan fewer workers.")
        first_rows = self.first_rows[self.slice_fragment] + self.slice_start
        backwards = np.flatnonzero(np.diff(first_rows) < 0) + 1
        if (wrong := backwards[~np.isin(backwards, offsets)]).size:
            raise _broken(
                self.strategy, f"slice {wrong[0]} comes before the one ahead of it", "A shard is in global row order."
            )

    def _check_coverage(self) -> None:
        order = np.lexsort((self.slice_start, self.slice_fragment))
        fragment, start, stop = self.slice_fragment[order], self.slice_start[order], self.slice_stop[order]
        same = np.zeros(len(order), dtype=bool)
        same[1:] = fragment[1:] == fragment[:-1]
        expected = np.where(same, np.concatenate([[0], stop[:-1]])[: len(order)], 0)
        if (wrong := np.flatnonzero(start != expected)).size:
            i = int(wrong[0])
            kind = "in two shards" if start[i] < expected[i] else "in no shard"
            rows = sorted((int(start[i]), int(expected[i])))
            raise _broken(self.strategy, f"rows {rows[0]} to {rows[1]} of fragment {fragment[i]} are {kind}")
        covered = np.zeros(len(self.fragment_rows), dtype=np.int64)
        np.maximum.at(covered, fragment, stop)
        if (wrong := np.flatnonzero(covered != self.fragment_rows)).size:
            i = int(wrong[0])
            raise _broken(
                self.strategy, f"{covered[i]} of the {self.fragment_rows[i]} rows of fragment {i} are planned"
            )


_COLUMNS = ("fragment_rows", "worker_offsets", "slice_fragment", "slice_start", "slice_stop")


def _broken(strategy: str, found: str, advice: str = "Each row must be read exactly once.") -> PlanError:
    return PlanError(f"checking the plan of strategy {strategy!r}", found, advice)


def _frozen_column(strategy: str, name: str, values: npt.ArrayLike) -> Int64Array:
    try:
        column = np.asarray(values)
    except ValueError as error:
        raise _broken(strategy, f"{name} is no list of whole numbers: {error}") from error
    # NumPy would cut off the decimals of 1.5 without a word.
    if column.ndim != 1 or (column.size and column.dtype.kind not in "iu") or (column > np.iinfo(np.int64).max).any():
        raise _broken(strategy, f"{name} is no list of whole 64-bit numbers: {values!r:.200}")
    frozen = column.astype(np.int64)
    frozen.setflags(write=False)
    return frozen

"""Run lengths of a group column in global row order: what it takes to keep whole groups together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardfit.columns import check_column
from shardfit.errors import BrokenGroupError, InvalidValueError, UnsupportedTypeError
from shardfit.source import DataSource, Fragment

Int64Array = npt.NDArray[np.int64]

READ_THREADS = 4
_BATCH_ROWS = 65_536
_FIRST_CHECK = 1_000_000


@dataclass(frozen=True, eq=False)
class GroupIndex:
    """Run lengths of the group column in global row order, one run a group.

    Args:
        run_lengths: Rows of each group, each 1 or more; int64, shape [groups]. They add up to the dataset's rows.

    Raises:
        ValueError: A run is empty.
    """

    run_lengths: Int64Array

    def __post_init__(self) -> None:
        lengths = np.array(self.run_lengths, dtype=np.int64, ndmin=1)
        lengths.setflags(write=False)
        object.__setattr__(self, "run_lengths", lengths)
        if (lengths < 1).any():
            raise ValueError(f"GroupIndex.run_lengths must be 1 or more, found {int(lengths.min())!r}")

    @property
    def boundaries(self) -> Int64Array:
        """Global row numbers where a group starts, and the row after the last; int64, shape [groups + 1]."""
        return np.concatenate([[0], np.cumsum(self.run_lengths)]).astype(np.int64)


def build_group_index(source: DataSource, column: str) -> GroupIndex:
    """Return the run lengths of a group column, from one pass over that column alone. Called on the driver.

    A few fragments are decoded ahead; memory is that of their current batches and of one value a group.

    Args:
        source: Where the rows are.
        column: Name of the group column: text, numbers, booleans or dates, or a dictionary of them.

    Raises:
        UnknownColumnError: The column does not exist, or exists twice.
        UnsupportedTypeError: Its type cannot be compared, such as a list.
        InvalidValueError: It holds a null or NaN; says in which row.
        BrokenGroupError: A group comes again after another one; names it and its two rows.
    """
    check_column(column, source.schema())
    _check_type(column, source.schema().field(column).type)
    fragments = [fragment for fragment in source.fragments() if fragment.rows]
    runs = _Runs(column, fragments)
    for part in _in_order(source, fragments, column):
        runs.append(part)
    return runs.index()


class _FragmentRuns(NamedTuple):
    """Equal, adjacent values of one fragment: each value and how often it stands there."""

    values: pa.Array
    lengths: Int64Array


class _Runs:
    """Runs of the whole column so far, joined where a fragment goes on with the last one's group."""

    def __init__(self, column: str, fragments: Sequence[Fragment]) -> None:
        self._column = column
        self._fragments = fragments
        self._values: list[pa.Array] = []
        self._lengths: list[Int64Array] = []
        self._count = 0
        self._check_at = _FIRST_CHECK

    def append(self, part: _FragmentRuns) -> None:
        """Add the runs of the next fragment."""
        values, lengths = part
        if self._values and self._values[-1][-1] == values[0]:
            self._lengths[-1][-1] += lengths[0]
            values, lengths = values.slice(1), lengths[1:]
        if not len(values):
            return
        self._values.append(values)
        self._lengths.append(lengths)
        self._count += len(values)
        # Rows that are not sorted at all would otherwise fill the memory before the answer comes; checking whenever the
        # count has doubled costs as much as checking once.
        if self._count >= self._check_at:
            self._check()
            self._check_at = 2 * self._count

    def index(self) -> GroupIndex:
        """Return the index of all runs, after a last check."""
        self._check()
        return GroupIndex(self._all_lengths())

    def _all_lengths(self) -> Int64Array:
        return np.concatenate([np.empty(0, np.int64), *self._lengths])

    def _check(self) -> None:
        if not self._values:
            return
        values = pa.chunked_array(self._values)
        codes = pc.index_in(values, value_set=pc.unique(values)).to_numpy()
        # A value that was not seen before gets the next code.
        new = np.maximum.accumulate(codes)
        again = np.flatnonzero(codes[1:] <= new[:-1]) + 1
        if again.size:
            self._raise_broken(int(again[0]), int(np.flatnonzero(codes == codes[again[0]])[0]))

    def _raise_broken(self, again: int, first: int) -> None:
        starts = np.cumsum(self._all_lengths()) - self._all_lengths()
        value = pa.chunked_array(self._values)[again].as_py()
        rows = int(starts[first]), int(starts[again])
        raise BrokenGroupError(
            f"reading groups from column {self._column!r}",
            f"group {value!r} starts in row {rows[0]} ({self._fragment_of(rows[0])}) and again in row {rows[1]} "
            f"({self._fragment_of(rows[1])})",
            "Sort the data by the group column, so that the rows of each group stand together.",
        )

    def _fragment_of(self, row: int) -> Fragment:
        ends = np.cumsum([fragment.rows for fragment in self._fragments])
        return self._fragments[int(np.searchsorted(ends, row, side="right"))]


def _in_order(source: DataSource, fragments: Sequence[Fragment], column: str) -> Iterator[_FragmentRuns]:
    pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="shardfit-groups")
    waiting: deque[Future[_FragmentRuns]] = deque()
    first_row = 0
    try:
        for fragment in fragments:
            waiting.append(pool.submit(_read_runs, source, fragment, column, first_row))
            first_row += fragment.rows
            if len(waiting) > READ_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_runs(source: DataSource, fragment: Fragment, column: str, first_row: int) -> _FragmentRuns:
    values: list[pa.Array] = []
    lengths: list[Int64Array] = []
    for batch in source.read(fragment, [column], 0, fragment.rows, _BATCH_ROWS):
        array = batch.column(0)
        array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        _check_values(array, column, fragment, first_row)
        first_row += len(array)
        runs = pc.run_end_encode(array, run_end_type=pa.int64())
        run_values, run_lengths = runs.values, np.diff(runs.run_ends.to_numpy(), prepend=0)
        if values and values[-1][-1] == run_values[0]:
            lengths[-1][-1] += run_lengths[0]
            run_values, run_lengths = run_values.slice(1), run_lengths[1:]
        if len(run_values):
            values.append(run_values)
            lengths.append(run_lengths)
    return _FragmentRuns(pa.concat_arrays(values), np.concatenate(lengths))


def _check_values(array: pa.Array, column: str, fragment: Fragment, first_row: int) -> None:
    bad = pc.is_null(array, nan_is_null=True)
    if (place := bad.index(True).as_py()) >= 0:
        raise InvalidValueError(
            f"reading groups from column {column!r} of {fragment}",
            f"found {array[place].as_py()!r} in row {first_row + place} of the dataset",
            "Each row needs a group; filter or fill such rows.",
        )


def _check_type(column: str, kind: pa.DataType) -> None:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(value) or pa.types.is_null(value):
        raise UnsupportedTypeError(
            f"reading groups from column {column!r}", f"its type is {kind}", "Use text or whole numbers."
        )

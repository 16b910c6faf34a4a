"""What every `DataSource` must do: a kit to subclass, and `check_source` for a single source."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfit.errors import ChangedDataError
from shardfit.source import DataSource, Fragment
from shardfit.testing.kit import Kit, check

ROWS = 240
"""Rows of the tables that a kit writes."""


def read_table(
    source: DataSource,
    columns: Sequence[str] | None = None,
    fragments: Sequence[Fragment] | None = None,
    batch_rows: int = 65_536,
) -> pa.Table:
    """Return the rows of some fragments, in order, as one table.

    Args:
        source: Read fragment by fragment.
        columns: Which columns; None means all.
        fragments: Which fragments; None means all.
        batch_rows: Most rows of a batch.
    """
    names = list(source.schema().names if columns is None else columns)
    schema = pa.schema([source.schema().field(name) for name in names])
    listed = source.fragments() if fragments is None else fragments
    batches = [batch for part in listed for batch in source.read(part, names, 0, part.rows, batch_rows)]
    return pa.Table.from_batches(batches, schema=schema)


def check_source(source: DataSource, expected: pa.Table, batch_rows: int = 7) -> None:
    """Check the contract of a source against the table that it should hold.

    Args:
        source: Not yet pickled.
        expected: Every row, in global row order; same columns as the schema.
        batch_rows: Most rows of a batch, where the check reads.

    Raises:
        AssertionError: Says which promise of `DataSource` does not hold.
    """
    fragments, names = tuple(source.fragments()), expected.schema.names
    check(source.schema().names == names, f"schema() has columns {source.schema().names!r}, expected {names!r}")
    check(fragments == tuple(source.fragments()), "fragments() gives another answer the second time")
    check(len({(part.uri, part.index) for part in fragments}) == len(fragments), "(uri, index) occurs twice")
    check(sum(part.rows for part in fragments) == expected.num_rows, "fragments do not add up to the rows")
    on_worker = pickle.loads(pickle.dumps(source))  # noqa: S301 - made here
    first = 0
    for part in fragments:
        rows = expected.slice(first, part.rows)
        check_range(source, part, names, (0, part.rows), rows, batch_rows)
        check_range(on_worker, part, names[::-1], (0, part.rows), rows.select(names[::-1]), batch_rows)
        for start, stop in pairwise(sorted({0, part.rows // 3, part.rows - 1, part.rows} - {-1})):
            wanted = rows.slice(start, stop - start).select(names[:1])
            check_range(on_worker, part, names[:1], (start, stop), wanted, batch_rows)
        first += part.rows


def check_range(
    source: DataSource,
    part: Fragment,
    columns: Sequence[str],
    rows: tuple[int, int],
    expected: pa.Table,
    batch_rows: int,
) -> None:
    """Check that some rows of one fragment are those expected, in batches that are small enough.

    Args:
        source: Read once.
        part: The fragment.
        columns: Which columns, in order.
        rows: First row and the row after the last, within the fragment.
        expected: What should come.
        batch_rows: Most rows of a batch.

    Raises:
        AssertionError: Says which promise does not hold.
    """
    __tracebackhide__ = True
    batches = list(source.read(part, columns, *rows, batch_rows))
    sizes = [batch.num_rows for batch in batches]
    where = f"rows {rows[0]} to {rows[1]} of {part}"
    check(all(1 <= size <= batch_rows for size in sizes), f"{where}: batches have {sizes!r} rows")
    schema = pa.schema([source.schema().field(name) for name in columns])
    check(all(batch.schema.equals(schema) for batch in batches), f"{where}: a batch has another schema")
    check_rows(pa.Table.from_batches(batches, schema=schema), expected, where)


def check_rows(found: pa.Table, expected: pa.Table, where: str) -> None:
    """Check that two tables have the same columns and the same rows in the same order, whatever their types.

    Args:
        found: What was read.
        expected: What was written.
        where: What was read, for the message.

    Raises:
        AssertionError: Names the first row that differs.
    """
    __tracebackhide__ = True
    check(found.schema.names == expected.schema.names, f"{where}: found the columns {found.schema.names!r}")
    check(found.num_rows == expected.num_rows, f"{where}: found {found.num_rows} rows, expected {expected.num_rows}")
    for row, (one, other) in enumerate(zip(found.to_pylist(), expected.to_pylist(), strict=True)):
        # As text, since NaN differs from itself.
        check(repr(one) == repr(other), f"{where}: row {row} is {one!r}, expected {other!r}")


class SourceKit(Kit, ABC):
    """What every `DataSource` must do. Subclass it, write some rows by other means than the source, and open them.

    Example:
        ```python
        class TestParquet(SourceKit):
            def write(self, folder, table):
                pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=100)

            def open(self, folder):
                return ParquetSource([str(folder / "a.parquet")])

            def change(self, folder):
                os.utime(folder / "a.parquet", (1, 1))
        ```
    """

    max_examples: ClassVar[int] = 15
    """Tables that each property is tried on."""

    never_changes: ClassVar[str] = ""
    """Why the rows of such a source cannot change once it is open; skips the tests of `change`."""

    @abstractmethod
    def write(self, folder: Path, table: pa.Table) -> None:
        """Put the rows of `table`, in its order, where `open` finds them; best in several fragments.

        Args:
            folder: Empty, and the test's own.
            table: What `table` made; may have no rows.
        """

    @abstractmethod
    def open(self, folder: Path) -> DataSource:
        """Return a new source for what was written into `folder`."""

    def change(self, folder: Path) -> None:
        """Change the rows in `folder` as a user might between planning and reading."""
        pytest.fail(f"{type(self).__name__} must say how its rows change, or set never_changes to the reason")

    def table(self, rows: int) -> pa.Table:
        """Return the rows that are written; override it where the source does not know all of these types."""
        ids = np.arange(rows)
        text = pa.array([None if i % 5 == 0 else f"name, {i % 3}" for i in ids], pa.string())
        value = pa.array(ids / 7, mask=ids % 4 == 1)
        return pa.table({"id": ids, "value": value, "text": text, "flag": pa.array(ids % 2 == 0), "last": ids[::-1]})

    def test_fragments_count_every_row_exactly(self, tmp_path: Path) -> None:
        """The row counts are known before anything is read, and they are what reading gives."""
        source = self._opened(tmp_path, ROWS)
        fragments = source.fragments()
        counted = sum(part.rows for part in fragments)
        check(counted == ROWS, f"fragments() counts {counted} rows, {ROWS} were written")
        for part in fragments:
            found = read_table(source, fragments=[part]).num_rows
            check(found == part.rows, f"{part} says {part.rows} rows and has {found}")

    def test_fragments_are_the_same_every_time(self, tmp_path: Path) -> None:
        """Whoever opens the same data sees the same fragments in the same order, each in a place of its own."""
        source = self._opened(tmp_path, ROWS)
        listed = tuple(source.fragments())
        check(listed == tuple(source.fragments()), "fragments() gives another answer the second time")
        check(listed == tuple(self.open(tmp_path).fragments()), "another source of the same data lists other fragments")
        places = [(part.uri, part.index) for part in listed]
        check(len(set(places)) == len(places), f"two fragments have the same uri and index: {places!r}")
        check(source.schema().equals(self.open(tmp_path).schema()), "another source has another schema")

    def test_rows_come_in_the_order_in_which_they_were_written(self, tmp_path: Path) -> None:
        """What is read is what was written by other means, row by row, on each pass."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        check(source.schema().names == table.schema.names, f"schema() has the columns {source.schema().names!r}")
        for number in ("first", "second"):
            found = read_table(source)
            check_rows(found, table, f"the {number} pass")

    def test_only_the_columns_asked_for_come_and_in_that_order(self, tmp_path: Path) -> None:
        """Any selection of columns, in any order, has the rows of the table."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        names = table.schema.names
        for columns in (names[::-1], names[:1], names[-1:], names[1::2]):
            check_rows(read_table(source, columns), table.select(columns), f"columns {columns!r}")

    def test_any_range_of_rows_is_read_in_batches_that_are_small_enough(self, tmp_path_factory: Any) -> None:
        """Rows `start` to `stop` of a fragment, in batches of 1 to `batch_rows` rows of the schema's types."""

        @settings(deadline=None, max_examples=self.max_examples)
        @given(rows=st.integers(1, 60), batch_rows=st.integers(1, 9), data=st.data())
        def check_any(rows: int, batch_rows: int, data: st.DataObject) -> None:
            source, table = self._opened(tmp_path_factory.mktemp("rows"), rows), self.table(rows)
            first = 0
            for part in source.fragments():
                start = data.draw(st.integers(0, part.rows), "start")
                stop = data.draw(st.integers(start, part.rows), "stop")
                columns = data.draw(st.permutations(table.schema.names), "columns")[:2]
                expected = table.slice(first + start, stop - start).select(columns)
                check_range(source, part, columns, (start, stop), expected, batch_rows)
                first += part.rows

        check_any()

    def test_a_pickled_source_reads_what_it_is_told(self, tmp_path: Path) -> None:
        """Workers get the source without the list of its fragments, and read those that they are told."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        fresh = len(pickle.dumps(source))
        fragments = pickle.loads(pickle.dumps(tuple(source.fragments())))  # noqa: S301 - made here
        listed = len(pickle.dumps(source))
        check(listed <= fresh + 1000, f"{fresh} bytes become {listed} once fragments() was called: the list travels")
        there = pickle.loads(pickle.dumps(source))  # noqa: S301 - made here
        check_rows(read_table(there, fragments=fragments), table, "a pickled source")

    def test_with_any_number_of_cpus_the_same_rows_are_read(self, tmp_path: Path) -> None:
        """A worker reads what `for_cpus` returns, twice, and closes the source that it came from."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        fragments = tuple(source.fragments())
        for cpus in (1, 2, 64):
            there = pickle.loads(pickle.dumps(source))  # noqa: S301 - made here
            for _ in range(2):
                found = read_table(there.for_cpus(cpus), fragments=fragments)
                check_rows(found, table, f"the source for {cpus} CPUs")
            there.close()

    def test_several_threads_read_at_once(self, tmp_path: Path) -> None:
        """Fragments that are read at the same time do not disturb each other."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        fragments = list(source.fragments())
        with ThreadPoolExecutor(8) as pool:
            tables = list(pool.map(lambda part: read_table(source, fragments=[part], batch_rows=3), fragments * 4))
        for turn in range(4):
            found = pa.concat_tables(tables[turn * len(fragments) : (turn + 1) * len(fragments)])
            check_rows(found, table, "reading from several threads")

    def test_a_pass_that_is_given_up_leaves_the_next_one_whole(self, tmp_path: Path) -> None:
        """A worker may stop in the middle of a fragment."""
        source, table = self._opened(tmp_path, ROWS), self.table(ROWS)
        part = next(part for part in source.fragments() if part.rows)
        batches = iter(source.read(part, table.schema.names, 0, part.rows, 1))
        next(batches)
        getattr(batches, "close", lambda: None)()
        check_rows(read_table(source), table, "a pass after one that was given up")

    def test_a_table_without_rows_is_a_source_without_rows(self, tmp_path: Path) -> None:
        """The schema is that of any other; no row is counted, none is read."""
        source, table = self._opened(tmp_path, 0), self.table(0)
        counted = sum(part.rows for part in source.fragments())
        check(counted == 0, f"fragments() counts {counted} rows where none was written")
        check(source.schema().names == table.schema.names, f"schema() has the columns {source.schema().names!r}")
        check(read_table(source).num_rows == 0, "a row was read where none was written")

    def test_changed_data_is_an_error_and_not_another_table(self, tmp_path: Path) -> None:
        """What was planned is not there any more: `ChangedDataError`, in this process and on a worker."""
        if self.never_changes:
            pytest.skip(self.never_changes)
        source = self._opened(tmp_path, ROWS)
        fragments = tuple(source.fragments())
        there = pickle.loads(pickle.dumps(source))  # noqa: S301 - made here
        self.change(tmp_path)
        for where, reader in (("the source that planned", source), ("a pickled source", there)):
            try:
                found = read_table(reader, source.schema().names, fragments)
            except ChangedDataError:
                continue
            check(False, f"{where} read {found.num_rows} rows of data that changed, without a word")

    def test_it_is_named_in_one_line(self, tmp_path: Path) -> None:
        """`describe` stands in plans, records and errors."""
        named = self._opened(tmp_path, ROWS).describe()
        check(named.strip() and "\n" not in named, f"describe() gives {named!r}")

    def _opened(self, folder: Path, rows: int) -> DataSource:
        self.write(folder, self.table(rows))
        return self.open(folder)


__all__ = ["ROWS", "SourceKit", "check_range", "check_rows", "check_source", "read_table"]

"""Where rows come from: fragments with known row counts, and the contract for reading them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Fragment:
    """The smallest independently readable piece of a dataset with a known row count.

    Args:
        uri: Canonical address of what holds it: a file's URI, or `memory:<position>` for a table.
        index: Its position within `uri`: a row group, a block of a CSV file, a slice of a table.
        rows: Exact number of rows, 0 or more.
        bytes: Approximate size in memory once decoded, or None where it cannot be known.
        version: What the content is recognised by when it is read again (size, time, entity tag); a reader that
            finds another version raises `ChangedDataError`. Empty where the content cannot change.
        position: Private to the source that made the fragment, for example byte offsets.
        values: How many values its sparse column holds; None where it has none, or this is not known.
    """

    uri: str
    index: int
    rows: int
    bytes: int | None = None
    version: str = ""
    position: tuple[int, ...] = ()
    values: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"Fragment.rows must be 0 or more, found {self.rows!r} for {self.uri!r}")

    def __str__(self) -> str:
        return f"{self.uri!r}, fragment {self.index}"


class DataSource(ABC):
    """The contract behind a `DataConnector`: a schema, fragments, and a way to read one fragment.

    Calls, in order:

    1. `schema()`: on the driver, any number of times.
    2. `fragments()`: on the driver, any number of times; metadata only.
    3. the source is pickled to workers, without what it has listed: a worker is told its fragments.
    4. `for_cpus(...)`: on every worker, before it reads; `read(...)`: once for each of its fragments and each pass.
    5. `close()`: on every worker, after the last pass.

    The same data gives the same schema, the same fragments in the same order, and the same rows every time.
    """

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Return the columns and their Arrow types. Called on the driver, any number of times.

        Raises:
            SourceNotFoundError: Nothing is there.
            UnreadableSourceError: It is there and cannot be read.
            SchemaMismatchError: Files disagree; says which file and which column.
        """

    @abstractmethod
    def fragments(self) -> Sequence[Fragment]:
        """Return every fragment with its exact row count, in the dataset's global row order.

        Reads metadata only. The order does not depend on the order in which files were named: fragments sort by
        canonical URI, then index; in-memory data keeps the order given. Called on the driver, any number of times.

        Raises:
            SourceNotFoundError, UnreadableSourceError, SchemaMismatchError: As for `schema`.
        """

    @abstractmethod
    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows `start` to `stop` (exclusive) of one fragment, in order, `columns` only and in that order.

        Batches hold 1 to `batch_rows` rows. Called on every worker, once a pass for each fragment of its shard;
        several fragments may be read at once from several threads.

        Raises:
            ChangedDataError: The fragment is no longer what was planned.
            UnreadableSourceError: A page is corrupt; names the file, the row group and the column.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return one line that names the source for people, with secrets redacted."""

    def in_memory(self) -> bool:
        """Return whether pickling this source would copy rows. Such sources reach Ray workers by reference."""
        return False

    def for_passes(self, passes: int) -> DataSource:
        """Return the source to read so many times: this one, or one that keeps what it reads. Called on the driver.

        Args:
            passes: How often each row is read, 1 or more; `Trainer.passes`.
        """
        return self

    def for_cpus(self, cpus: int) -> DataSource:
        """Return the source to read with so many CPUs: this one, or one that decodes otherwise. Called on every worker.

        What is returned is read in place of this source, and this source is closed.

        Args:
            cpus: Those of the worker, 1 or more. One thread decodes while the worker is busy with what it has decoded.
        """
        return self

    def close(self) -> None:  # noqa: B027
        """Give back what reading has taken, such as disk. Called on every worker after training, also after an error.

        The source can be read again afterwards.
        """

    def warnings(self) -> tuple[str, ...]:
        """Return what the plan should tell about this data, a sentence each. Called on the driver, at any time."""
        return ()


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """How well an opener fits what it was asked about.

    Args:
        priority: The highest wins; the built-ins use 10 for what they are made for and 1 for a last resort.
        reason: Shown to people when two openers claim the same thing.
    """

    priority: int
    reason: str = ""


class SourceOpener(Protocol):
    """What `shardfit_sources` maps a name to: says whether it can open something, and opens it."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim if `data` can be opened, else None. Cheap, no I/O. Called on the driver."""

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the source for `data`. Called once for each connector and run, on the driver.

        Args:
            data: What was claimed, or what the user forced this opener upon.
            options: Plain values, as the user gave them.

        Raises:
            DataError: `data` cannot be opened.
        """

"""What the trainer kit puts in the place of a trainer and of a source to see how a trainer takes it."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardfit.binned_trainer import BinnedTrainer
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import UnreadableSourceError
from shardfit.shard_reader import ShardReader
from shardfit.source import DataSource, Fragment
from shardfit.trainer import RunSettings, Trainer


def _passed_on(name: str, pickled: bool = False) -> Any:
    def call(self: Any, *arguments: Any) -> Any:
        self.calls.append(name)
        answer = getattr(self.make(), name)(*arguments)
        return pickle.loads(pickle.dumps(answer)) if pickled else answer  # noqa: S301 - made here

    return call


class ForgetfulTrainer(Trainer):
    """Passes every call on to a new trainer, so that nothing is kept between two of them; configurations are copied.

    Args:
        make: Makes the trainer.
        calls: The name of each call is appended, `left` when the rendezvous is over.
    """

    def __init__(self, make: Callable[[], Trainer], calls: list[str]) -> None:
        self.make = make
        self.calls = calls
        self.deals_rows = make().deals_rows

    configure: Any = _passed_on("configure", pickled=True)
    columns: Any = _passed_on("columns", pickled=True)
    warnings: Any = _passed_on("warnings")
    estimate_memory: Any = _passed_on("estimate_memory")
    within_memory: Any = _passed_on("within_memory", pickled=True)
    check_shape: Any = _passed_on("check_shape")
    why_no_gpu: Any = _passed_on("why_no_gpu")
    passes: Any = _passed_on("passes")
    run_worker: Any = _passed_on("run_worker", pickled=True)
    collect: Any = _passed_on("collect")
    save: Any = _passed_on("save")
    load: Any = _passed_on("load")
    predict: Any = _passed_on("predict")
    input_columns: Any = _passed_on("input_columns")

    @contextmanager
    def rendezvous(self, workers: WorkerGroup) -> Iterator[Any]:
        """Meet as the trainer does."""
        self.calls.append("rendezvous")
        with self.make().rendezvous(workers) as meeting:
            yield meeting
        self.calls.append("left")


class ForgetfulBinnedTrainer(ForgetfulTrainer, BinnedTrainer):
    """The same for a trainer that bins its features."""

    max_bin: Any = _passed_on("max_bin")
    missing: Any = _passed_on("missing")
    terms: Any = _passed_on("terms")
    label_terms: Any = _passed_on("label_terms")
    check_labels: Any = _passed_on("check_labels")
    with_profile: Any = _passed_on("with_profile", pickled=True)
    open_reference: Any = _passed_on("open_reference")
    join: Any = _passed_on("join")
    ingest: Any = _passed_on("ingest")
    kept_bytes: Any = _passed_on("kept_bytes")
    bins_depend_on: Any = _passed_on("bins_depend_on")
    keep: Any = _passed_on("keep")
    take_kept: Any = _passed_on("take_kept")
    library_rows: Any = _passed_on("library_rows")
    fit: Any = _passed_on("fit", pickled=True)
    release: Any = _passed_on("release")

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: Any,
        settings: RunSettings,
        meeting: Any,
    ) -> Any:
        """Call the parts of this object, each of which goes to a new trainer."""
        self.calls.append("run_worker")
        return BinnedTrainer.run_worker(self, context, shards, config, settings, meeting)


def forgetful(make: Callable[[], Trainer], calls: list[str]) -> Trainer:
    """Return a trainer that passes every call on to a new one.

    Args:
        make: Makes the trainer.
        calls: The name of each call is appended.
    """
    binned = isinstance(make(), BinnedTrainer)
    return ForgetfulBinnedTrainer(make, calls) if binned else ForgetfulTrainer(make, calls)


class _WrappedSource(DataSource):
    def __init__(self, source: DataSource) -> None:
        self._source = source

    def schema(self) -> pa.Schema:
        return self._source.schema()

    def fragments(self) -> Sequence[Fragment]:
        return self._source.fragments()

    def describe(self) -> str:
        return self._source.describe()

    def in_memory(self) -> bool:
        return self._source.in_memory()


class FailingSource(_WrappedSource):
    """Reads until it is armed; then the last fragment breaks off in its middle.

    Args:
        source: Where the rows are.
        armed: The source fails while this file exists, in every process.
    """

    def __init__(self, source: DataSource, armed: Path) -> None:
        super().__init__(source)
        self._armed = armed
        self._last = next(part for part in reversed(source.fragments()) if part.rows)

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows, or half of them and an `UnreadableSourceError`."""
        fails = fragment == self._last and self._armed.exists()
        half = (start + stop) // 2
        yield from self._source.read(fragment, columns, start, half if fails else stop, batch_rows)
        if fails:
            raise UnreadableSourceError(f"reading {fragment}", f"the disk is gone after row {half}", "It is a test.")


class CountingSource(_WrappedSource):
    """Counts how often each row is read, in this process.

    Args:
        source: Where the rows are.
    """

    def __init__(self, source: DataSource) -> None:
        super().__init__(source)
        self.read_rows: Counter[tuple[str, int, int]] = Counter()

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows, and count them."""
        for batch in self._source.read(fragment, columns, start, stop, batch_rows):
            # Now, since who has what it needs does not ask for more.
            rows = range(start, start + batch.num_rows)
            self.read_rows.update((fragment.uri, fragment.index, row) for row in rows)
            yield batch
            start += batch.num_rows


__all__ = ["CountingSource", "FailingSource", "ForgetfulBinnedTrainer", "ForgetfulTrainer", "forgetful"]

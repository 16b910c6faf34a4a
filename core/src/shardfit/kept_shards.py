"""One worker's shards and what is kept of them: which key they have, when they are taken up, when they are kept."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.engine import WorkerContext
from shardfit.engines.machine import memory
from shardfit.errors import CacheError, StaleAttemptError, WorkerLostError
from shardfit.events import BinsKept, BinsRejected, BinsTaken
from shardfit.kept_bins import BinKeeping, KeptBins, anything_kept, sweep
from shardfit.local_disk import is_ram_disk, scratch_folder
from shardfit.matrix_reader import MatrixReader
from shardfit.plain_values import plain_value
from shardfit.versions import installed_versions

if TYPE_CHECKING:
    from shardfit.binned_trainer import BinnedTrainer, BinReference

# What is binned in less time is binned again as fast as it is noticed, and looked for, on the disk.
WORTH_SECONDS = 1.0
# Systems write this part of memory behind one's back, and make a process wait for the disk beyond twice of it.
QUICK_SHARE = 20


class KeptShards:
    """What a worker keeps of its shards in one attempt. A context manager: leaving it removes them, but after a loss.

    Args:
        trainer: Writes matrices and reads them.
        context: This worker.
        config: What `with_profile` returned.
        reference: The bins.
        keeping: For whom; None to keep nothing.
    """

    def __init__(
        self,
        trainer: BinnedTrainer,
        context: WorkerContext,
        config: Any,
        reference: BinReference,
        keeping: BinKeeping | None,
    ) -> None:
        self._trainer, self._context, self._config, self._reference = trainer, context, config, reference
        self._keeping = keeping
        self._kept: KeptBins | None = None
        self._keys: list[str] = []

    def __enter__(self) -> Self:
        if self._keeping is not None:
            try:
                sweep()
            except OSError as error:
                self._reject("", error)
        if self._keeping is not None and self._bytes(1):
            try:
                # A run that keeps nothing touches no disk.
                self._kept = KeptBins(self._keeping) if anything_kept(self._keeping.run_id) else None
            except OSError as error:
                self._reject("", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept is None:
            return
        # Whoever is told that a newer attempt goes on must not remove what that one may be taking up.
        lost = kind is not None and issubclass(kind, WorkerLostError | StaleAttemptError)
        if not lost:
            for key in self._keys:
                self._kept.remove(key)
        self._kept.close(keep=lost)

    def take(
        self, dataset: str, reader: MatrixReader, opened: Any, content: int | None
    ) -> tuple[Any, DatasetCoverage] | None:
        """Return the matrix of a shard and its coverage, from what an earlier attempt has kept; None if it has not.

        Args:
            dataset: Name of the dataset.
            reader: Of the shard.
            opened: What `open_reference` returned.
            content: Digest of what the shard held when it was profiled, or None.
        """
        if self._kept is None:
            return None
        key = self._key(dataset, reader)
        try:
            if (found := self._kept.take(key)) is None:
                return None
            folder, facts = found
            matrix = self._trainer.take_kept(self._context, dataset, folder, reader, opened, self._config)
            coverage = self._coverage(reader, matrix, facts, content)
            if not coverage.exact:
                self._trainer.release(matrix)
                raise CacheError(f"taking up the bins of {dataset!r}", f"they hold other rows: {coverage!r}")
        except (OSError, EOFError) as error:
            # A `CacheError`, or what a file gives that was removed, or damaged, since it was looked at.
            self._kept.remove(key)
            self._reject(dataset, error)
            return None
        self._keys.append(key)
        self._context.progress("ingest", reader.rows, reader.rows, dataset)
        self._emit(BinsTaken(worker=self._context.rank, dataset=dataset, rows=reader.rows))
        return matrix, coverage

    def keep(
        self, dataset: str, reader: MatrixReader, matrix: Any, coverage: DatasetCoverage, binned_seconds: float
    ) -> None:
        """Keep the matrix of a shard for the attempt that may follow, if that is worth it.

        Args:
            dataset: Name of the dataset.
            reader: Of the shard.
            matrix: What `ingest` returned.
            coverage: The rows that it holds.
            binned_seconds: How long `ingest` took.
        """
        if self._keeping is None or not self._bytes(1) or not coverage.exact:
            return
        needed = self._bytes(reader.rows)
        if not self._keeping.always and not _worth(binned_seconds, needed):
            return
        key, begun = self._key(dataset, reader), self._context.clock()
        handed = coverage.handed
        facts = {"rows": handed.rows, "powers": list(handed.powers), "content": coverage.handed_content}
        try:
            self._kept = self._kept or KeptBins(self._keeping)
            size = self._kept.keep(key, needed, lambda folder: self._trainer.keep(matrix, folder), facts)
        except OSError as error:
            self._reject(dataset, error)
            return
        self._keys.append(key)
        seconds = self._context.clock() - begun
        self._emit(BinsKept(worker=self._context.rank, dataset=dataset, bytes=size, seconds=seconds))

    def _coverage(
        self, reader: MatrixReader, matrix: Any, facts: Mapping[str, Any], content: int | None
    ) -> DatasetCoverage:
        kept = RowDigest(facts["rows"], tuple(facts["powers"]))
        # A trainer that had to read the rows once more has proved anew which they are, and that they are the same.
        if reader.handed.rows and (reader.handed, reader.content) != (kept, facts["content"]):
            raise CacheError("taking up kept bins", "the rows are not those that were binned")
        planned = RowDigest.of_shard(reader.shard.shard)
        return DatasetCoverage(planned, kept, self._trainer.library_rows(matrix), content, facts["content"])

    def _bytes(self, rows: int) -> int:
        return self._trainer.kept_bytes(self._config, rows, len(self._reference.spec.roles.features))

    def _key(self, dataset: str, reader: MatrixReader) -> str:
        assert self._keeping is not None
        depends = self._trainer.bins_depend_on(self._config)
        return shard_key(self._keeping, self._context, dataset, reader, self._reference, depends)

    def _reject(self, dataset: str, error: Exception) -> None:
        self._emit(BinsRejected(worker=self._context.rank, dataset=dataset, reason=str(error)))

    def _emit(self, event: BinsKept | BinsTaken | BinsRejected) -> None:
        self._context.emit(event)


def _worth(binned_seconds: float, needed: int) -> bool:
    """Return whether what was binned in some seconds is kept where nothing else is said.

    What is larger than a small part of memory would wait for the disk to be written, and all peers with it.
    """
    quick = needed <= memory() // QUICK_SHARE
    return quick and binned_seconds >= WORTH_SECONDS and not is_ram_disk(scratch_folder())


def shard_key(
    keeping: BinKeeping,
    context: WorkerContext,
    dataset: str,
    reader: MatrixReader,
    reference: BinReference,
    depends: Mapping[str, Any],
) -> str:
    """Return a digest of everything that the matrix of a shard follows from.

    Args:
        keeping: Has the digests of the shard plans.
        context: Which worker it is.
        dataset: Name of the dataset.
        reader: Of the shard.
        reference: The bins.
        depends: What else the trainer says.
    """
    spec, pieces = reference.spec, reader.shard.shard.slices
    facts = {
        "plan": keeping.plans[dataset],
        "dataset": dataset,
        "worker": (context.rank, context.world_size),
        "columns": reader.shard.columns,
        "rows": [
            (*(getattr(piece.fragment, name) for name in _RECOGNISED_BY), piece.start, piece.stop, piece.first_row)
            for piece in pieces
        ],
        "driver": "" if all(piece.fragment.version for piece in pieces) else keeping.driver,
        "spec": repr((spec.roles, spec.casts, sorted(spec.categories.items()), spec.max_bin, spec.missing)),
        "trainer": depends,
        "versions": installed_versions(),
        "byte order": sys.byteorder,
    }
    sha = hashlib.sha256(json.dumps(plain_value(facts), sort_keys=True).encode())
    for points in reference.cut_points:
        sha.update(f"{len(points)}:".encode())
        sha.update(points.tobytes())
    return sha.hexdigest()


_RECOGNISED_BY = ("uri", "index", "rows", "version", "position")

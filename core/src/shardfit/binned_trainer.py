"""The contract of boosters: bins from the profile of the whole table, a matrix from each shard, then the fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.allocators import give_back_memory
from shardfit.casts import ColumnCast
from shardfit.columns import ColumnRoles
from shardfit.engine import WorkerContext
from shardfit.kept_shards import KeptShards
from shardfit.matrix_reader import MatrixReader, MatrixSpec
from shardfit.memory_meter import measured
from shardfit.profile import Profile
from shardfit.profile.cut_points import choose_cut_points, choose_sparse_cut_points
from shardfit.shard_reader import ShardReader
from shardfit.trainer import TRAIN, RunSettings, Trainer, WorkerReport

Float32Array = npt.NDArray[np.float32]

_CUT_THREADS = 4


@dataclass(frozen=True)
class BinReference:
    """The bins of every matrix of a run, and how rows become matrices. Sent to every worker.

    Args:
        spec: Names, types, categories, max_bin, missing.
        cut_points: For each feature the values between its bins, or the codes of its categories; float32, ascending.
        content: Dataset name -> digest of the content of each worker's shard, by rank, when it was profiled; empty
            where others have profiled other shards.
        gapless: Dataset name -> whether each worker's shard, by rank, is known to lack no value of any feature.
    """

    spec: MatrixSpec
    cut_points: tuple[Float32Array, ...]
    content: Mapping[str, tuple[int, ...]]
    gapless: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)

    @classmethod
    def from_profile(
        cls,
        profile: Profile,
        roles: ColumnRoles,
        casts: tuple[ColumnCast, ...],
        max_bin: int,
        missing: float,
        content: Mapping[str, tuple[int, ...]],
    ) -> BinReference:
        """Return the bins that the profile of the whole training data gives."""
        categories = profile.category_maps()
        spec = MatrixSpec(roles, casts, categories, max_bin, missing)
        if profile.sparse is not None:
            return cls(spec, choose_sparse_cut_points(profile.sparse, max_bin), content)

        def points_of(j: int) -> Float32Array:
            if (name := roles.features[j]) in categories:
                return np.arange(len(categories[name].values), dtype=np.float32)
            return choose_cut_points(profile, j, max_bin)

        # Most of it is sorting, for which NumPy lets other threads run.
        with ThreadPoolExecutor(_CUT_THREADS, thread_name_prefix="shardfit-cut-points") as pool:
            points = tuple(pool.map(points_of, range(len(roles.features))))
        return cls(spec, points, content)


class BinnedTrainer(Trainer):
    """A trainer that bins its features: the bins come from the whole table, so the model does not depend on workers.

    Call 4 of `Trainer` becomes these; all are stateless, as there:

    a. `label_terms`: for each batch of the profile pass, on every worker.
    b. the core merges the profiles and chooses the cut points, on the driver.
    c. `check_labels`: for each dataset, then `with_profile`: once, on the driver. After a loss, a to c are not repeated
       but for `with_profile`: the profile is the same however many workers go on, and lacks its sampled features then.
    d. `open_reference`: once an attempt, on every worker. `join`: after it, around the rest.
    e. `ingest`: once for each dataset, training data first, on every worker. `library_rows`: after it. Where
       `kept_bytes` says that matrices can be kept: `keep` after it, and in a later attempt `take_kept` in its place.
    f. `fit`: once an attempt, on every worker. `release`: once for each matrix, after it.
    """

    @property
    def profiles(self) -> bool:
        """Whether the core profiles the data: it does."""
        return True

    @abstractmethod
    def max_bin(self, config: Any) -> int:
        """Return the most bins of a feature, 2 or more. Called on the driver."""

    def missing(self, config: Any) -> float:
        """Return the value that counts as missing beside NaN; NaN for none. Called on the driver."""
        return float("nan")

    def terms(self, config: Any, roles: ColumnRoles) -> int:
        """Return how many terms `label_terms` gives, 0 or more. Called on the driver.

        Args:
            config: What `configure` returned.
            roles: Resolved column roles.
        """
        one = np.ones(1, dtype=np.float32)
        labels = one if len(roles.label) == 1 else np.ones((1, len(roles.label)), dtype=np.float32)
        return int(self.label_terms(config, labels, one).shape[1])

    @abstractmethod
    def label_terms(self, config: Any, labels: Float32Array, weights: Float32Array | None) -> npt.NDArray[np.float64]:
        """Return what is to be summed exactly over all rows: float64, shape [rows, terms], finite.

        Called for each batch of training data in the profile pass, on every worker. The number of terms is fixed by
        `config`.

        Args:
            config: What `configure` returned.
            labels: float32, shape [rows] or [rows, outputs].
            weights: float32, shape [rows], or None.
        """

    def check_labels(self, config: Any, dataset: str, profile: Profile) -> None:
        """Check that the labels of a dataset can be learnt from, or measured on. Called for each, on the driver.

        Args:
            config: What `configure` returned.
            dataset: `train`, or the name of an evaluation set.
            profile: Of the whole dataset.

        Raises:
            InvalidValueError: One class only, or labels outside the range of the objective; names the dataset.
        """

    @abstractmethod
    def with_profile(self, config: Any, profile: Profile) -> Any:
        """Return the configuration completed with what the whole table says. Called once an attempt, on the driver.

        Args:
            config: What `configure` returned.
            profile: Of the whole training data; after a loss without `sample`, with everything else.
        """

    def open_reference(self, reference: BinReference, config: Any, settings: RunSettings) -> Any:
        """Return what the library takes its bins from. Called once an attempt, on every worker, before `join`.

        Args:
            reference: Cut points, and how rows become matrices.
            config: What `with_profile` returned.
            settings: Where to go on from, for libraries that start rows from the scores of an earlier model.
        """
        return reference

    def join(self, context: WorkerContext, meeting: Any) -> AbstractContextManager[Any]:
        """Connect this worker with its peers while the context lasts. Called once an attempt, on every worker.

        The value of the context is passed to `fit` as `connection`.

        Args:
            context: This worker.
            meeting: What `rendezvous` yielded.
        """
        return nullcontext()

    @abstractmethod
    def ingest(
        self,
        context: WorkerContext,
        dataset: str,
        reader: MatrixReader,
        reference: Any,
        config: Any,
    ) -> Any:
        """Return the library's matrix of this worker's shard, binned by `reference`. An empty shard gives no rows.

        Args:
            context: This worker.
            dataset: Name of the dataset.
            reader: Yields the rows, once for each call of `batches`.
            reference: What `open_reference` returned.
            config: What `with_profile` returned.

        Called for `train` first, then for each evaluation set in the order in which they were given, on every worker.
        """

    @abstractmethod
    def library_rows(self, matrix: Any) -> int:
        """Return how many rows the library itself says that `matrix` holds. Called after `ingest`."""

    @abstractmethod
    def fit(
        self,
        context: WorkerContext,
        matrices: Mapping[str, Any],
        config: Any,
        settings: RunSettings,
        connection: Any,
    ) -> Any:
        """Train and return what `collect` needs. Called once an attempt, on every worker.

        Args:
            context: Rank, world size, threads; reports metrics, offers checkpoints, tells whether to stop.
            matrices: Dataset name -> what `ingest` returned.
            config: What `with_profile` returned.
            settings: Seed, checkpoints, where to go on from.
            connection: What `join` yielded.
        """

    def release(self, matrix: Any) -> None:
        """Give back what a matrix holds beside memory. Called once for each, on every worker, however the fit ended.

        Args:
            matrix: What `ingest` returned; an `ingest` that raises gives back for itself.
        """

    def kept_bytes(self, config: Any, rows: int, features: int) -> int:
        """Return about how many bytes a matrix takes on the disk; 0 where none can be kept. Called anywhere.

        Args:
            config: What `configure` or `with_profile` returned.
            rows: Of the matrix.
            features: Of the matrix.
        """
        return 0

    def bins_depend_on(self, config: Any) -> Mapping[str, Any]:
        """Return what matrices depend on beside rows, cut points and `MatrixSpec`, as plain values. On every worker.

        Args:
            config: What `with_profile` returned.
        """
        return {}

    def keep(self, matrix: Any, folder: Path) -> None:
        """Write a matrix into an empty folder. Called after `ingest`, on every worker, where `kept_bytes` is not 0.

        Args:
            matrix: What `ingest` returned.
            folder: On the local disk.

        Raises:
            OSError: It cannot be written; training goes on.
        """
        raise TypeError(f"{type(self).__name__} says that matrices can be kept, and not how")

    def take_kept(
        self, context: WorkerContext, dataset: str, folder: Path, reader: MatrixReader, reference: Any, config: Any
    ) -> Any:
        """Return the matrix that `keep` wrote in an earlier attempt, as `ingest` would. Called in its place.

        Args:
            context: This worker.
            dataset: Name of the dataset.
            folder: Its files are as they were written.
            reader: Yields the rows, for what is not kept; need not be read.
            reference: What `open_reference` returned.
            config: What `with_profile` returned.

        Raises:
            CacheError: The library does not take them; `ingest` is called.
        """
        raise TypeError(f"{type(self).__name__} says that matrices can be kept, and not how")

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: Any,
        settings: RunSettings,
        meeting: Any,
    ) -> WorkerReport:
        """Bin each shard, then fit. Not for overriding."""
        reference: BinReference = settings.reference
        coverage = {}
        give_back_memory()
        opened = self.open_reference(reference, config, settings)
        with (
            KeptShards(self, context, config, reference, settings.keep_bins) as kept,
            self._released() as matrices,
            self.join(context, meeting) as connection,
        ):
            with measured(context, "ingest"):
                for dataset in (TRAIN, *(name for name in shards if name != TRAIN)):
                    gapless = reference.gapless.get(dataset)
                    reader = MatrixReader(
                        shards[dataset], reference.spec, gapless=gapless is not None and gapless[context.rank]
                    )
                    contents = reference.content.get(dataset)
                    content = contents[context.rank] if contents else None
                    if (taken := kept.take(dataset, reader, opened, content)) is not None:
                        matrices[dataset], coverage[dataset] = taken
                        continue
                    begun = context.clock()
                    matrices[dataset] = self.ingest(context, dataset, reader, opened, config)
                    binned_seconds = context.clock() - begun
                    coverage[dataset] = reader.coverage(self.library_rows(matrices[dataset]), content)
                    kept.keep(dataset, reader, matrices[dataset], coverage[dataset], binned_seconds)
            # What decoding leaves in the allocators' pools would lie idle for as long as the fit lasts.
            give_back_memory()
            with measured(context, "fit"):
                return WorkerReport(self.fit(context, matrices, config, settings, connection), coverage)

    @contextmanager
    def _released(self) -> Iterator[dict[str, Any]]:
        matrices: dict[str, Any] = {}
        with ExitStack() as stack:
            try:
                yield matrices
            finally:
                for matrix in matrices.values():
                    stack.callback(self.release, matrix)

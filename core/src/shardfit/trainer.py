"""What a framework's plugin provides: the small `Trainer` contract, and the values that it is called with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardfit.columns import ColumnRoles
from shardfit.coverage import DatasetCoverage
from shardfit.data_shape import DataShape
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.kept_bins import BinKeeping
from shardfit.memory_plan import MemoryPart
from shardfit.scaling import WorkerLayout
from shardfit.shard_reader import ShardReader
from shardfit.source import Fragment

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state to go on from.

    Args:
        step: Rounds or steps that it holds; 0 where it does not say.
        files: Name -> content, as the worker offered them or as `Trainer.save` wrote them.
        metrics: `"<dataset>-<metric>"` -> round -> value, of the run that it is from.
    """

    step: int
    files: Mapping[str, bytes] = field(repr=False)
    metrics: Mapping[str, Mapping[int, float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What holds for a whole attempt, beside the trainer's own configuration.

    Args:
        roles: Resolved column roles; `features` is never empty.
        seed: The run's seed.
        checkpoint_every_rounds: Offer a checkpoint after every so many rounds, or None.
        checkpoint_every_seconds: Offer one after so many seconds without, or None.
        resume: The checkpoint to go on from, or None.
        reference: For a `BinnedTrainer`, the bins that every matrix is made with; else None.
        fragments: Dataset name -> all its fragments, in global row order, where `Trainer.deals_rows`; else empty.
        keep_bins: For whom workers keep what they have binned; None to keep nothing.
    """

    roles: ColumnRoles
    seed: int = 0
    checkpoint_every_rounds: int | None = None
    checkpoint_every_seconds: float | None = None
    resume: Checkpoint | None = None
    reference: Any = None
    fragments: Mapping[str, Sequence[Fragment]] = field(default_factory=dict, repr=False)
    keep_bins: BinKeeping | None = None


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker ends with.

    Args:
        value: Whatever the trainer returned; passed on to `collect`.
        coverage: Dataset name -> the rows that were handed to the library.
    """

    value: Any
    coverage: Mapping[str, DatasetCoverage]


class Trainer(ABC):
    """A framework's way to train a model on shards.

    Calls, in order; the object is made once a run and holds no state between calls:

    1. `configure`: once, on the driver.
    2. `check_evals`, `columns`: once, on the driver. `why_no_gpu`, `check_shape`, `within_memory`, `warnings`,
       `estimate_memory` and `passes`: on the driver, for the plan. `check_resume`: once, on the driver, where an
       earlier run is gone on from.
    3. `rendezvous`: once an attempt, on the driver, entered before the workers run and left after them.
    4. `run_worker`: once an attempt, on every worker at the same time.
    5. `collect`: once, on the driver.
    6. `save`, `metadata`: once, on the driver. `load`: any number of times, anywhere.
    7. `predict`: for each batch, on every worker of a prediction.

    The trainer object, what `configure` returns, what `rendezvous` yields and models are pickled to workers.
    """

    deals_rows: bool = False
    """Whether the trainer deals the rows of whole datasets to its workers itself, batch by batch, instead of reading
    shards. It is then given every fragment, no type is cast for it, and a small table leaves no worker out."""

    takes_sparse: bool = False
    """Whether the trainer can learn from a sparse column, which is then the only feature; see `shardfit.sparse`."""

    @abstractmethod
    def configure(self, params: Mapping[str, Any]) -> Any:
        """Return the configuration that `params` ask for. Called once, on the driver.

        Raises:
            UnknownParameterError: A parameter does not exist; suggests the nearest name.
            InvalidArgumentError: A value cannot be used, or cannot be used distributed; names the alternative.
        """

    def check_evals(self, config: Any, evals: Sequence[str]) -> None:  # noqa: B027
        """Check that there are the evaluation sets that `config` needs. Called once, on the driver.

        Args:
            config: What `configure` returned.
            evals: Their names, in the order in which they were given; may be empty.

        Raises:
            InvalidArgumentError: One is missing.
        """

    def columns(self, config: Any, roles: ColumnRoles, schema: pa.Schema) -> ColumnRoles:
        """Return the columns that training needs, with defaults filled in. Called once, on the driver.

        Args:
            config: What `configure` returned.
            roles: What the user asked for; `features` is empty where every other column is meant.
            schema: Columns and types of the training data.

        Raises:
            UnknownColumnError: A column does not exist.
            InvalidArgumentError: A role is missing that `config` needs.
        """
        return roles.resolve(schema)

    def warnings(self, config: Any, roles: ColumnRoles, layout: WorkerLayout) -> tuple[str, ...]:
        """Return what the user should know before the start, a sentence each. Called once, on the driver.

        Args:
            config: What `configure` returned.
            roles: What `columns` returned.
            layout: Where workers will run.
        """
        return ()

    @property
    def profiles(self) -> bool:
        """Whether the core profiles the data for this trainer, which takes memory of its own."""
        return False

    def estimate_memory(self, config: Any, shape: DataShape) -> Sequence[MemoryPart]:
        """Return what the library's memory goes to on the largest worker; the core adds reading and the profile.

        Called for each plan, on the driver, and for others to find out how many workers would do.

        Args:
            config: What `configure` returned, or `within_memory` has changed it to.
            shape: Size of the largest worker's shards.
        """
        return ()

    def within_memory(self, config: Any, shape: DataShape, available: int) -> tuple[Any, str]:
        """Return the configuration whose workers get by with their memory, and what was changed for that.

        Called for each plan, on the driver, with what `configure` returned and not with what an earlier call did.

        Args:
            config: What `configure` returned.
            shape: Size of the largest worker's shards.
            available: Least bytes that a worker has; 0 where unknown.

        Returns:
            `config`, changed or not, and a sentence for the plan; empty where nothing was changed.
        """
        return config, ""

    def check_shape(self, config: Any, shape: DataShape) -> None:  # noqa: B027
        """Check that the library can hold the largest shard. Called for each plan, on the driver.

        Args:
            config: What `configure` returned.
            shape: Size of the largest worker's shards.

        Raises:
            InvalidArgumentError: It cannot; says how many workers would do.
        """

    def why_no_gpu(self, config: Any) -> str | None:
        """Return why workers are not given GPUs, a sentence, or None where they may use them. Called on the driver.

        Args:
            config: What `configure` returned.
        """
        return None

    def passes(self, config: Any) -> int:
        """Return how often each shard is read. Called once, on the driver, for the plan."""
        return 1

    def check_resume(self, config: Any, roles: ColumnRoles, checkpoint: Checkpoint) -> None:  # noqa: B027
        """Check that training can go on from `checkpoint`. Called once, on the driver, where one is asked for.

        Args:
            config: What `configure` returned.
            roles: What `columns` returned.
            checkpoint: Of an earlier run, or a finished model.

        Raises:
            InvalidArgumentError: It does not fit; says what it has and what was asked for.
        """

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Any]:
        """Hold whatever must live while workers meet: a tracker, a list of held ports, an address.

        The value of the context is passed to `run_worker` as `meeting`. Entered once an attempt, on the driver.
        """
        return nullcontext()

    @abstractmethod
    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: Any,
        settings: RunSettings,
        meeting: Any,
    ) -> Any:
        """Train on this worker's shards and return what `collect` needs. Called once an attempt, on every worker.

        Args:
            context: Rank, world size, threads; reports metrics, offers checkpoints, tells whether to stop.
            shards: `train` and one reader for each evaluation set, by name. Each may be read any number of times.
            config: What `configure` returned.
            settings: Roles, seed, checkpoints.
            meeting: What `rendezvous` yielded.
        """

    @abstractmethod
    def collect(self, values: Sequence[Any]) -> Any:
        """Return the model, from what the workers returned, by rank. Called once, on the driver."""

    @abstractmethod
    def save(self, model: Any) -> Mapping[str, bytes | Path]:
        """Return the files that hold the model; nothing pickled. Called once, on the driver.

        A large file is better a path, which is stored piece by piece: the model's own, which lives as long as it does.
        """

    def metadata(self, model: Any) -> Mapping[str, Any]:
        """Return what the manifest says of the model, beside what it says of every run. Called once, on the driver.

        `category_maps` is column -> its categories in the order of their codes, for whoever loads the model without
        shardfit.

        Args:
            model: What `collect` returned.

        Returns:
            Plain values that JSON can hold; nothing by default.
        """
        return {}

    @abstractmethod
    def load(self, files: Mapping[str, bytes]) -> Any:
        """Return the model that `save` wrote. Called anywhere."""

    @abstractmethod
    def predict(self, model: Any, batch: pa.RecordBatch) -> pa.Array:
        """Return one prediction for each row of `batch`, in order. Called on every worker of a prediction.

        Args:
            model: What `load` returned.
            batch: 1 or more rows; has the `input_columns`, as the data has them.
        """

    def best_round(self, model: Any) -> int | None:
        """Return the last round that `predict` uses, or None for all that were trained. Called on the driver."""
        return None

    def input_columns(self, model: Any) -> tuple[str, ...]:
        """Return the columns that `predict` needs. Called on the driver."""
        raise TypeError(f"{type(self).__name__} does not say which columns its models predict from")


__all__ = ["TRAIN", "Checkpoint", "DataShape", "RunSettings", "Trainer", "WorkerReport"]

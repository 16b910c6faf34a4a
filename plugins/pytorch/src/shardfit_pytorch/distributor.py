"""`PyTorchDistributor`: a training loop as a run, with datasets, hyper-parameters and a stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from shardfit.connector import DataConnector
from shardfit.coverage import DatasetCoverage
from shardfit.errors import InvalidArgumentError
from shardfit.events import EventSink
from shardfit.job import Job
from shardfit.registry import Registry, default_registry
from shardfit.run import TrainResult
from shardfit.sharded_connector import ShardedDataConnector
from shardfit.train import train
from shardfit.trainer import TRAIN
from shardfit_pytorch.config import DatasetUse, PyTorchScalingConfig, check_hyper_params
from shardfit_pytorch.scaling import NodesPolicy, RunPolicies
from shardfit_pytorch.user_loop import UserLoop

_numbers = itertools.count(1)


@dataclass(frozen=True, eq=False)
class PyTorchDistributorResult:
    """What a finished run gives.

    Args:
        result: The result of the core: run, plan, phases, attempts, warnings.
    """

    result: TrainResult = field(repr=False)

    def get_model_dir(self) -> str:
        """Return where the files of the model directory are published: a folder, or the URL of one."""
        return self.result.model_address

    def get_metrics(self) -> dict[str, float]:
        """Return the last value of each metric that rank 0 reported; `result.metrics` has all of them."""
        return {name: values[-1] for name, values in self.result.metrics.items() if values}

    def get_checkpoint_location(self) -> str | None:
        """Return where the last checkpoint is kept, or None if none was saved."""
        store = self.result.store
        found = list(store.list(f"run/{self.result.run_id}/checkpoint-"))
        return store.address(found[-1]) if found else None

    @property
    def run_id(self) -> str:
        """Identifier of the run, which `PyTorchDistributor(resume_from=...)` takes."""
        return self.result.run_id

    @property
    def coverage(self) -> Mapping[str, DatasetCoverage]:
        """Dataset name -> the rows of its last whole epoch, as planned and as handed over; sharded datasets only."""
        return self.result.coverage


class PyTorchDistributor:
    """Runs a training loop on every worker.

    Args:
        train_func: The loop; takes the context, or nothing and asks for it with `get_context()`.
        scaling_config: How many workers; everything there is if None.
        seed: Of shuffles, beside the seed of each dataset; 0 to 2**31 - 1.
        max_attempts: How often to try in all when workers are lost, 1 or more.
        resume_from: Id of a run, or of one of its checkpoints, to go on from, in the same stage.
        registry: Where plugins come from; the installed ones if None.
        observers: Called with every event of a run.

    Raises:
        InvalidArgumentError: `train_func` cannot be called, or needs more than the context.
    """

    def __init__(
        self,
        train_func: Callable[..., Any],
        scaling_config: PyTorchScalingConfig | None = None,
        *,
        seed: int = 0,
        max_attempts: int = 3,
        resume_from: str | PyTorchDistributorResult | None = None,
        registry: Registry | None = None,
        observers: Sequence[EventSink] = (),
    ) -> None:
        UserLoop.of(train_func)
        if scaling_config is not None and not isinstance(scaling_config, PyTorchScalingConfig):
            raise InvalidArgumentError(
                "reading scaling_config", f"found {scaling_config!r}", "Use a PyTorchScalingConfig."
            )
        self._train_func = train_func
        self._scaling = scaling_config or PyTorchScalingConfig()
        self._seed, self._max_attempts = seed, max_attempts
        self._resume_from = resume_from.run_id if isinstance(resume_from, PyTorchDistributorResult) else resume_from
        self._registry = registry
        self._observers = tuple(observers)

    def run(
        self,
        dataset_map: Mapping[str, Any] | None = None,
        hyper_params: Mapping[str, Any] | None = None,
        artifact_stage_location: str | None = None,
    ) -> PyTorchDistributorResult:
        """Run the loop to its end on all workers, and publish what rank 0 left in its model directory.

        Args:
            dataset_map: Name -> `ShardedDataConnector`, whose rows are dealt to the ranks, or `DataConnector`, which
                every rank reads in full. None for a loop without data.
            hyper_params: Any JSON values, by name; `get_context().get_hyper_params()` returns them.
            artifact_stage_location: Where the model is published; the user's own stage if None.

        Raises:
            InvalidArgumentError: A hyper-parameter is no JSON value, or the loop cannot be pickled where it must be.
            InfeasibleRequestError: More was asked for than there is.
            WorkerError: The loop raised on a rank; the message has rank, node and the remote traceback.
            WorkerLostError: Workers were lost more often than the attempts allow.
            ShardfitError: See `shardfit.errors`; nothing is published unless everything went well.
        """
        data, evals, uses = _datasets(dataset_map)
        hyper_params = check_hyper_params({} if hyper_params is None else hyper_params)
        with self._scaled() as (registry, scaling):
            job = Job(
                trainer="pytorch",
                data=data,
                evals=evals,
                params={"train_func": self._train_func, "hyper_params": hyper_params, "datasets": uses},
                scaling=scaling,
                sharding="rows",
                stage=artifact_stage_location,
                seed=self._seed,
                resume_from=self._resume_from,
                max_attempts=self._max_attempts,
            )
            return PyTorchDistributorResult(train(job, registry=registry, observers=self._observers))

    @contextmanager
    def _scaled(self) -> Iterator[tuple[Registry, str]]:
        """Lend a registry that has this run's scaling policy, under a name of its own."""
        registry = self._registry or default_registry()
        name = f"pytorch-nodes-{next(_numbers)}"
        registry.register(RunPolicies(name, NodesPolicy(self._scaling)), name)
        try:
            yield registry, name
        finally:
            registry.unregister(name)


def _datasets(
    dataset_map: Mapping[str, Any] | None,
) -> tuple[DataConnector, dict[str, DataConnector], dict[str, DatasetUse]]:
    """Return the training data, the other datasets, and how the loop sees each."""
    if dataset_map is not None and not isinstance(dataset_map, Mapping):
        raise InvalidArgumentError("reading dataset_map", f"found {dataset_map!r:.200}", "Use a dict of connectors.")
    given = dict(dataset_map or {})
    if stray := [name for name in given if not isinstance(name, str) or not name]:
        raise InvalidArgumentError("reading dataset_map", f"found the name {stray[0]!r}", "Names are text.")
    if not given:
        # A run is about some data; this one row is not shown to the loop.
        return DataConnector.from_arrow(pa.table({"nothing": [0]})), {}, {}
    main = TRAIN if TRAIN in given else next(iter(given))
    connectors = {
        name: each.connector if isinstance(each, ShardedDataConnector) else DataConnector.of(each)
        for name, each in given.items()
    }
    uses = {
        name: DatasetUse(
            TRAIN if name == main else name,
            sharded=isinstance(each, ShardedDataConnector),
            equal=isinstance(each, ShardedDataConnector) and each.equal,
        )
        for name, each in given.items()
    }
    return connectors.pop(main), connectors, uses

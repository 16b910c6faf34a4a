"""What the estimators of the boosters share: seed-style arguments in, a job out, predictions from its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from shardfit.cancellation import Cancellation
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError
from shardfit.events import Event, EventSink, MetricsReported, RunEnded
from shardfit.job import Job
from shardfit.prediction import WorkerRequest, predict
from shardfit.registry import Registry, default_registry
from shardfit.run import TrainResult
from shardfit.train import train


@dataclass(frozen=True, slots=True)
class BoosterScalingConfig:
    """How many workers train a booster, and with what. The default is everything that is useful, and says why.

    Args:
        num_workers: Number of workers; -1 for one on each node, or one for each GPU.
        num_cpu_per_worker: CPUs of each; -1 for all of a node divided by its workers.
        use_gpu: True, False, or None to decide from the cluster.
        engine: `inline` for this process, `ray` for a cluster, `auto` for the cluster if one is there.
    """

    num_workers: int = -1
    num_cpu_per_worker: int = -1
    use_gpu: bool | None = None
    engine: Literal["auto", "inline", "ray"] = "auto"


class BoosterEstimator:
    """Fits a booster. Subclasses name their trainer and return their library's model.

    Args:
        trainer: Name of the trainer.
        params: The trainer's parameters.
        scaling_config: How many workers; everything that is useful if None.
        artifact_stage_location: Where the model is published; the user's own stage if None.
        seed: 0 to 2**31 - 1.
        sharding: Name of a sharding strategy, or `auto`.
        checkpoint_every_rounds: Keep a checkpoint after every so many rounds, or None.
        checkpoint_every_seconds: Keep one after so many seconds without, or None; seldomer where making them would take
            more than a fiftieth of the time.
        max_attempts: How often to try in all when workers are lost, 1 or more.
        keep_bins: Whether workers keep what they have binned on their local disk, for an attempt after a loss: `auto`
            what took a second or more to bin, `always`, or `never`.
        registry: Where plugins come from; the installed ones if None.
        observers: Called with every event of a run.
    """

    def __init__(
        self,
        trainer: str,
        params: Mapping[str, Any],
        scaling_config: BoosterScalingConfig | None,
        artifact_stage_location: str | None,
        seed: int,
        sharding: str = "auto",
        checkpoint_every_rounds: int | None = None,
        checkpoint_every_seconds: float | None = 10.0,
        max_attempts: int = 3,
        registry: Registry | None = None,
        observers: Sequence[EventSink] = (),
        keep_bins: Literal["auto", "always", "never"] = "auto",
    ) -> None:
        self._trainer_name = trainer
        self._params = dict(params)
        self._scaling = scaling_config or BoosterScalingConfig()
        self._stage = artifact_stage_location
        self._seed = seed
        self._sharding = sharding
        self._every_rounds, self._every_seconds = checkpoint_every_rounds, checkpoint_every_seconds
        self._max_attempts = max_attempts
        self._keep_bins = keep_bins
        self._registry = registry
        self._observers = tuple(observers)
        self._result: TrainResult | None = None
        self._cancellation = Cancellation()

    @property
    def result(self) -> TrainResult:
        """The result of the last fit.

        Raises:
            InvalidArgumentError: Nothing has been fitted.
        """
        if self._result is None:
            raise InvalidArgumentError("asking for a result", "nothing has been fitted", "Call fit first.")
        return self._result

    def cancel(self) -> None:
        """End the fit that is under way, from another thread: it raises `RunCancelledError` within seconds.

        Its workers are gone then, and `shardfit.resume_run` goes on from its last checkpoint. Nothing happens where no
        fit is under way.
        """
        self._cancellation.cancel()

    def predict(self, dataset: object) -> pa.ChunkedArray:
        """Return one prediction for each row of `dataset`, in its row order; distributed as training is.

        Args:
            dataset: A `DataConnector`, or whatever `DataConnector.from_dataframe` accepts. It needs the features, and
                what else the library predicts from: XGBoost the base margins if the model was trained with some.

        Returns:
            The library's floats, float32 of XGBoost and float64 of LightGBM, or lists of them for several outputs.
        """
        return self._predict(dataset, None)

    def predict_to(self, dataset: object, destination: str) -> int:
        """Write one prediction for each row of `dataset` to Parquet files, in order, and return how many.

        Args:
            dataset: As for `predict`.
            destination: Path or URL of a new or empty folder that every worker can reach. Files sort in row order and
                have one column, `prediction`. They appear when all are written.

        Raises:
            ArtifactError: The destination is not empty or cannot be written.
        """
        written: int = self._predict(dataset, destination)
        return written

    def get_eval_results(self) -> dict[str, dict[str, list[float]]]:
        """Return dataset -> metric -> value after each round, over all rows of the dataset."""
        return {name: dict(metrics) for name, metrics in self.result.model.history.items()}

    def _predict(self, dataset: object, destination: str | None) -> Any:
        scaling = self._scaling
        request = WorkerRequest(scaling.num_workers, scaling.num_cpu_per_worker, scaling.use_gpu, scaling.engine)
        result = self.result
        registry = self._registry or default_registry()
        data = DataConnector.of(dataset)
        return predict(result.trainer, result.model, data, registry, request, destination, self._observers)

    def _fit(
        self,
        dataset: object,
        roles: ColumnRoles,
        eval_set: object,
        verbose_eval: bool | int | None,
        resume_from: str | TrainResult | None,
        early_stopping_rounds: object,
    ) -> TrainResult:
        evals = evaluation_sets(eval_set)
        if early_stopping_rounds is not None and not evals:
            raise InvalidArgumentError(
                "reading early_stopping_rounds",
                f"found {early_stopping_rounds!r} and no evaluation set",
                "Set eval_set.",
            )
        job = Job(
            trainer=self._trainer_name,
            data=DataConnector.of(dataset),
            evals=evals,
            columns=roles,
            params=self._params,
            workers=self._scaling.num_workers,
            cpus_per_worker=self._scaling.num_cpu_per_worker,
            use_gpu=self._scaling.use_gpu,
            engine=self._scaling.engine,
            sharding=self._sharding,
            scaling="default",
            stage=self._stage,
            seed=self._seed,
            resume_from=resume_from.run_id if isinstance(resume_from, TrainResult) else resume_from,
            checkpoint_every_rounds=self._every_rounds,
            checkpoint_every_seconds=self._every_seconds,
            max_attempts=self._max_attempts,
            keep_bins=self._keep_bins,
        )
        printer = [RoundPrinter(int(verbose_eval))] if verbose_eval else []
        self._cancellation = Cancellation()
        self._result = train(
            job,
            registry=self._registry,
            observers=[*self._observers, *printer],
            cancellation=self._cancellation,
        )
        return self._result


class RoundPrinter:
    """Prints the metrics of every so many rounds, and of the last, as `xgboost.train` does.

    Args:
        every: Rounds between lines, 1 or more.
        write: Called with each line.
    """

    def __init__(self, every: int, write: Callable[[str], None] = print) -> None:
        self._every = every
        self._write = write
        self._waiting: MetricsReported | None = None

    def __call__(self, event: Event) -> None:
        """Print the event if it is a round's and its turn has come; at the end, the last round if it was not."""
        if isinstance(event, MetricsReported) and event.metrics:
            self._waiting = event
            if event.round % self._every == 0:
                self._print()
        elif isinstance(event, RunEnded) and event.status == "finished":
            self._print()

    def _print(self) -> None:
        if self._waiting is not None:
            values = "\t".join(f"{name}:{value:.5f}" for name, value in self._waiting.metrics.items())
            self._write(f"[{self._waiting.round}]\t{values}")
            self._waiting = None


def evaluation_sets(eval_set: object) -> dict[str, DataConnector]:
    """Return evaluation sets by name: none, one called `eval`, or those of a mapping."""
    if eval_set is None:
        return {}
    if isinstance(eval_set, Mapping):
        return {str(name): DataConnector.of(data) for name, data in eval_set.items()}
    return {"eval": DataConnector.of(eval_set)}


def column_names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return column names given as one name, several, or none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def with_arguments(
    params: Mapping[str, Any], arguments: Mapping[str, Any], main_name: Callable[[str], str]
) -> dict[str, Any]:
    """Return a library's parameters, completed with the arguments that are not among them under any name.

    Args:
        params: What the user gave as parameters; they win.
        arguments: Name -> value; those that are None count as not given.
        main_name: Returns the library's main name of a parameter.
    """
    given = {main_name(name) for name in params}
    more = {name: value for name, value in arguments.items() if value is not None and main_name(name) not in given}
    return {**params, **more}

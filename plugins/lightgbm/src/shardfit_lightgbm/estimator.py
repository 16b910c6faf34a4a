"""`LightGBMEstimator`: the arguments of a plain LightGBM program, trained on shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from shardfit.columns import ColumnRoles
from shardfit.estimator import BoosterEstimator, BoosterScalingConfig, column_names, with_arguments
from shardfit.run import TrainResult

if TYPE_CHECKING:
    import lightgbm

    from shardfit.events import EventSink
    from shardfit.registry import Registry


class LightGBMScalingConfig(BoosterScalingConfig):
    """How many workers train a LightGBM model; see `BoosterScalingConfig`."""

    __slots__ = ()


class LightGBMEstimator(BoosterEstimator):
    """Trains a LightGBM booster; the same one however many workers train it.

    Args:
        n_estimators: Boosting rounds.
        objective: LightGBM's name, or a function (raw scores, dataset) -> (gradients, hessians) of this worker's rows.
        params: LightGBM's parameters; they win over the arguments here.
        scaling_config: How many workers; everything that is useful if None.
        callbacks: LightGBM callbacks; each runs on every worker.
        early_stopping_rounds: Rounds without improvement of any metric on any evaluation set before training stops, on
            all workers in the same round; of the first metric alone with `first_metric_only`.
        custom_metric: A function (predictions, labels, weights) -> (numerator, denominator) over this worker's rows;
            the value is the ratio of their sums over all workers. Or a `shardfit.metrics.CustomMetric`.
        artifact_stage_location: Where the model is published; the user's own stage if None.
        seed: 0 to 2**31 - 1.
        sharding: Name of a sharding strategy; `auto` keeps groups together where there are any.
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
        n_estimators: int = 100,
        objective: str | Callable[..., tuple[Any, Any]] = "regression",
        params: Mapping[str, Any] | None = None,
        scaling_config: BoosterScalingConfig | None = None,
        callbacks: Sequence[Any] | None = None,
        *,
        early_stopping_rounds: int | None = None,
        custom_metric: Any = None,
        artifact_stage_location: str | None = None,
        seed: int = 0,
        sharding: str = "auto",
        checkpoint_every_rounds: int | None = None,
        checkpoint_every_seconds: float | None = 10.0,
        max_attempts: int = 3,
        keep_bins: Literal["auto", "always", "never"] = "auto",
        registry: Registry | None = None,
        observers: Sequence[EventSink] = (),
    ) -> None:
        arguments = {
            "n_estimators": n_estimators,
            "objective": objective,
            "callbacks": None if callbacks is None else list(callbacks),
            "early_stopping_rounds": early_stopping_rounds,
            "custom_metric": custom_metric,
        }
        super().__init__(
            "lightgbm",
            with_arguments(params or {}, arguments, _main_name),
            scaling_config,
            artifact_stage_location,
            seed,
            sharding,
            checkpoint_every_rounds,
            checkpoint_every_seconds,
            max_attempts,
            registry,
            observers,
            keep_bins,
        )

    def fit(
        self,
        dataset: object,
        input_cols: Sequence[str] | None = None,
        label_col: str | Sequence[str] | None = None,
        eval_set: object = None,
        verbose_eval: bool | int | None = None,
        *,
        weight_col: str | None = None,
        group_col: str | None = None,
        init_score_col: str | Sequence[str] | None = None,
        categorical_cols: Sequence[str] | None = None,
        resume_from: str | TrainResult | None = None,
    ) -> lightgbm.Booster:
        """Train and return the booster.

        Args:
            dataset: A `DataConnector`, or whatever `DataConnector.from_dataframe` accepts.
            input_cols: Features, in the order of the model; every column without another part if None.
            label_col: Column to predict.
            eval_set: One dataset, called `eval`, or a mapping of names to datasets.
            verbose_eval: Print the metrics of each round (True) or of every so many rounds (a number).
            weight_col: Column of sample weights.
            group_col: Column whose equal, adjacent values make a query group, for ranking.
            init_score_col: Column of initial raw scores; one for each class. Predictions do not include them.
            categorical_cols: Those of the features that hold categories.
            resume_from: The result or run id of an earlier run in the same stage, or an artifact in it, to go on from;
                `n_estimators` counts its rounds too.

        Raises:
            ShardfitError: See `shardfit.errors`.
        """
        roles = ColumnRoles(
            features=column_names(input_cols),
            label=column_names(label_col),
            weight=weight_col,
            group=group_col,
            base_margin=column_names(init_score_col),
            categorical=column_names(categorical_cols),
        )
        patience = next((v for n, v in self._params.items() if _main_name(n) == "early_stopping_round"), None)
        # To LightGBM, 0 means none.
        self._fit(dataset, roles, eval_set, verbose_eval, resume_from, patience or None)
        return self.get_booster()

    def get_booster(self) -> lightgbm.Booster:
        """Return the trained booster, a plain `lightgbm.Booster`, made anew at each call.

        Raises:
            InvalidArgumentError: Nothing has been fitted.
        """
        return self.result.model.booster()

    def to_sklearn(self) -> lightgbm.LGBMModel:
        """Return a fitted `LGBMRegressor`, `LGBMClassifier` or `LGBMRanker` with the same predictions.

        It takes what the booster takes: float features, categories as their codes in `result.model.spec.categories`.
        """
        from shardfit_lightgbm.sklearn_model import to_sklearn

        return to_sklearn(self.result.model)


def _main_name(name: str) -> str:
    from shardfit_lightgbm.parameters import main_name

    return main_name(name)

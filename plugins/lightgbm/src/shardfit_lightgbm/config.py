"""What a run of LightGBM is configured with: a frozen value that travels to every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardfit.errors import InvalidArgumentError
from shardfit.metrics import Metric
from shardfit.metrics.custom import custom_metric
from shardfit_lightgbm.gradients import ROW_OBJECTIVES
from shardfit_lightgbm.metrics import default_metric, metrics_named
from shardfit_lightgbm.objectives import ObjectiveFacts, objective_facts
from shardfit_lightgbm.parameters import RUN_PARAMETERS, check_parameters

CustomObjective = Callable[..., tuple[Any, Any]]

_NO_METRIC = {"None", "na", "null", "custom"}
_NO = ("false", "-")
_SHARES_OF_CLASSES = ("pos_bagging_fraction", "neg_bagging_fraction", "bagging_by_query")
# With several machines LightGBM knows this way of keeping constraints only, and turns others into it.
_MONOTONE_METHOD = "basic"


@dataclass(frozen=True, slots=True)
class Bagging:
    """Which rows a round sees, chosen by the hash of their global numbers.

    Args:
        fraction: Share of the rows, above 0 and below 1.
        frequency: Rounds after which other rows are drawn.
        seed: Of the hash, or None for the run's.
    """

    fraction: float
    frequency: int
    seed: int | None


@dataclass(frozen=True)
class LightGBMConfig:
    """Everything that the workers need to know of the parameters.

    Args:
        params: For the booster, without what shardfit does itself.
        rounds: Most boosting rounds.
        objective: What is known of the objective.
        custom_objective: A function (raw scores, dataset) -> (gradients, hessians), or None.
        metrics: Evaluated after each round on each evaluation set.
        early_stopping_rounds: Rounds without improvement before training stops, or None.
        min_delta: By how much a score must be better to count.
        first_metric_only: Whether the first metric alone decides.
        bagging: Which rows a round sees; None for all, or where LightGBM draws them itself.
        native_bagging: Whether LightGBM draws rows itself, worker by worker.
        starts_from_average: Whether `boost_from_average` holds.
        callbacks: LightGBM callbacks, run on every worker.
        monotone_method: The `monotone_constraints_method` that was asked for.
        initial_scores: Raw score that every row starts from, by class; empty for 0. Completed with the profile.
        has_missing: For each feature whether the training data has missing values. Completed with the profile.
        rows: Rows of the training data. Completed with the profile.
    """

    params: Mapping[str, Any]
    rounds: int
    objective: ObjectiveFacts
    custom_objective: CustomObjective | None = None
    metrics: tuple[Metric, ...] = ()
    early_stopping_rounds: int | None = None
    min_delta: float = 0.0
    first_metric_only: bool = False
    bagging: Bagging | None = None
    native_bagging: bool = False
    starts_from_average: bool = True
    callbacks: tuple[Any, ...] = ()
    monotone_method: str = _MONOTONE_METHOD
    initial_scores: tuple[float, ...] = ()
    has_missing: tuple[bool, ...] = ()
    rows: int = 0

    @property
    def max_bin(self) -> int:
        """Most bins of a feature."""
        return int(self.params.get("max_bin", 255))

    @property
    def keeps_missing(self) -> bool:
        """Whether LightGBM has bins for missing values of numbers."""
        return str(self.params.get("use_missing", True)).lower() not in _NO

    @property
    def chooses_rows(self) -> bool:
        """Whether LightGBM chooses the rows of a round itself, each machine among its own."""
        return self.native_bagging or self.samples_by_gradient

    @property
    def samples_by_gradient(self) -> bool:
        """Whether LightGBM keeps the rows of large gradients, and some of the others."""
        return "goss" in (self.params.get("boosting"), self.params.get("data_sample_strategy"))

    @property
    def summable(self) -> bool:
        """Whether shardfit computes gradients, so that their sums are exact.

        Not where leaves are no sums of gradients, where a gradient depends on other rows as well, or where LightGBM
        chooses rows, which it gives other gradients.
        """
        return not self.chooses_rows and (self.objective.name is None or self.objective.name in ROW_OBJECTIVES)

    @property
    def trains_as_two(self) -> bool:
        """Whether a lone worker trains as two machines.

        Not where LightGBM averages leaf values over machines, or draws rows on each: the smaller may be left with none.
        """
        return not (self.objective.averages_leaves or self.chooses_rows)


def configure(params: Mapping[str, Any]) -> LightGBMConfig:
    """Return the configuration that `params` ask for.

    Raises:
        UnknownParameterError: A parameter does not exist.
        InvalidArgumentError: A value cannot be used.
    """
    checked = check_parameters(params)
    run = {name: checked.pop(name) for name in sorted(RUN_PARAMETERS & checked.keys())}
    objective = run.get("objective", "regression")
    facts = objective_facts(objective, checked)
    custom = objective if callable(objective) else None
    patience = int(run.get("early_stopping_round", 0))
    bagging, native = _bagging(run, checked)
    if bagging is not None and facts.name == "cross_entropy_lambda":
        raise InvalidArgumentError(
            "using bagging_fraction with objective 'cross_entropy_lambda'",
            "rows are left out by a weight of 0, which it does not take",
            "Use objective 'cross_entropy', or leave bagging_fraction out.",
        )
    booster = {**checked, **(_native(run) if native else {})}
    method = str(booster.pop("monotone_constraints_method", _MONOTONE_METHOD))
    fixed: dict[str, Any] = {
        "boost_from_average": False,
        "deterministic": True,
        "enable_bundle": False,
        "feature_pre_filter": False,
        "is_enable_sparse": False,
        "metric": "None",
        "min_data_in_bin": 1,
        # A function is passed with each round; LightGBM itself has no objective then.
        "objective": facts.name or "none",
        "verbosity": int(checked.get("verbosity", -1)),
    }
    return LightGBMConfig(
        params={**booster, **fixed},
        rounds=int(run.get("num_iterations", 100)),
        objective=facts,
        custom_objective=custom,
        metrics=_metrics(run.get("metric"), run.get("custom_metric"), facts, checked),
        early_stopping_rounds=patience or None,
        min_delta=float(run.get("early_stopping_min_delta", 0.0)),
        first_metric_only=bool(run.get("first_metric_only", False)),
        bagging=bagging,
        native_bagging=native,
        starts_from_average=bool(run.get("boost_from_average", True)) and custom is None,
        callbacks=tuple(run.get("callbacks") or ()),
        monotone_method=method if booster.get("monotone_constraints") else _MONOTONE_METHOD,
    )


def _bagging(run: Mapping[str, Any], booster: Mapping[str, Any]) -> tuple[Bagging | None, bool]:
    """Return how rows are drawn, and whether LightGBM does it."""
    frequency, fraction = int(run.get("bagging_freq", 0)), float(run.get("bagging_fraction", 1.0))
    if not frequency:
        return None, False
    if any(name in booster for name in _SHARES_OF_CLASSES):
        return None, True
    seed = run.get("bagging_seed")
    return (None if fraction >= 1.0 else Bagging(fraction, frequency, None if seed is None else int(seed))), False


def _native(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in ("bagging_fraction", "bagging_freq", "bagging_seed") if name in run}


def _metrics(given: object, custom: object, facts: ObjectiveFacts, params: Mapping[str, Any]) -> tuple[Metric, ...]:
    given = sorted(given) if isinstance(given, set) else given
    names = list(given) if isinstance(given, list | tuple) else [] if given is None else str(given).split(",")
    if not names and custom is None and facts.name is not None:
        names = [default_metric(facts.name)]
    found: list[Metric] = []
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgumentError(
                "reading metric", f"found {name!r}", "Use a name; pass a function as custom_metric."
            )
        if name.strip() not in _NO_METRIC:
            own = default_metric(facts.name) if name.strip() in {"", "auto"} and facts.name else name
            found += [
                metric
                for metric in metrics_named(own, {**params, "objective": facts.name})
                if metric.name not in {m.name for m in found}
            ]
    if custom is not None:
        found.append(custom_metric(custom, found, "metric"))
    return tuple(found)

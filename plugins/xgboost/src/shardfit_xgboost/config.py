"""What a run of XGBoost is configured with: a frozen value that travels to every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardfit.errors import InvalidArgumentError
from shardfit.metrics import Metric, metric_named
from shardfit.metrics.custom import custom_metric
from shardfit_xgboost.objectives import ObjectiveFacts, objective_facts
from shardfit_xgboost.parameters import RUN_PARAMETERS, check_parameters
from shardfit_xgboost.storage import Storage, read_storage

CustomObjective = Callable[..., tuple[Any, Any]]


@dataclass(frozen=True)
class XGBConfig:
    """Everything that the workers need to know of the parameters.

    Args:
        params: For the booster, without what shardfit does itself.
        rounds: Most boosting rounds.
        objective: What is known of the objective.
        custom_objective: A function (predictions, matrix) -> (gradients, hessians), or None.
        metrics: Evaluated after each round on each evaluation set; the last one of the last set decides on stopping.
        early_stopping_rounds: Rounds without improvement before training stops, or None.
        subsample: Share of the rows in each round, chosen by hash.
        native_subsample: Whether the library samples instead, worker by worker.
        callbacks: XGBoost callbacks, run on every worker.
        missing: A number that counts as missing beside nulls and NaN; NaN for none.
        storage: Where the matrices lie.
    """

    params: Mapping[str, Any]
    rounds: int
    objective: ObjectiveFacts
    custom_objective: CustomObjective | None = None
    metrics: tuple[Metric, ...] = ()
    early_stopping_rounds: int | None = None
    subsample: float = 1.0
    native_subsample: bool = False
    callbacks: tuple[Any, ...] = ()
    missing: float = float("nan")
    storage: Storage = field(default_factory=Storage)

    @property
    def max_bin(self) -> int:
        """Most bins of a feature."""
        return int(self.params.get("max_bin", 256))


def configure(params: Mapping[str, Any]) -> XGBConfig:
    """Return the configuration that `params` ask for.

    Raises:
        UnknownParameterError: A parameter does not exist.
        InvalidArgumentError: A value cannot be used.
    """
    checked = check_parameters(params)
    run = {name: checked.pop(name) for name in sorted(RUN_PARAMETERS & checked.keys())}
    objective = run.get("objective", "reg:squarederror")
    custom = None if isinstance(objective, str) else objective
    facts = objective_facts(None if custom else objective, checked)
    metrics = _metrics(checked.pop("eval_metric", None), run.get("custom_metric"), facts, checked)
    subsample = float(checked.pop("subsample", 1.0))
    # Weights of zero would give all trees of a round the same rows, and XGBoost normalises the weights of groups.
    native = subsample < 1.0 and (facts.ranks or int(checked.get("num_parallel_tree", 1)) > 1)
    if native:
        checked["subsample"] = subsample
    patience = run.get("early_stopping_rounds")
    missing = float(checked.pop("missing", float("nan")))
    if checked.pop("verbosity", None) is not None:
        checked["verbosity"] = params["verbosity"]
    base = {"tree_method": "hist", "seed_per_iteration": True, "disable_default_eval_metric": True}
    name = {} if custom else {"objective": objective}
    return XGBConfig(
        params={**checked, **base, **name},
        rounds=int(run.get("n_estimators", 100)),
        objective=facts,
        custom_objective=custom,
        metrics=metrics,
        early_stopping_rounds=None if patience is None else int(patience),
        subsample=subsample,
        native_subsample=native,
        callbacks=tuple(run.get("callbacks") or ()),
        missing=missing,
        storage=read_storage(run, checked),
    )


def _metrics(given: object, custom: object, facts: ObjectiveFacts, params: Mapping[str, Any]) -> tuple[Metric, ...]:
    names = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if given is None and custom is None:
        names = [facts.metric(params)]
    found: list[Metric] = []
    for name in names:
        metric = metric_named(name, **facts.metric_options(params)) if isinstance(name, str) else name
        if not isinstance(metric, Metric):
            raise InvalidArgumentError(
                "reading eval_metric", f"found {metric!r}", "Use a name; pass a function as custom_metric."
            )
        # "error" and "error@0.5" are one; named twice, it would be written down twice a round.
        found = [*(other for other in found if other.name != metric.name), metric]
    if custom is not None:
        found.append(custom_metric(custom, found, "eval_metric"))
    return tuple(found)

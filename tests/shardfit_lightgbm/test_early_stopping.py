"""All workers stop in the round in which LightGBM on one process stops, and keep the same best round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from shardfit.errors import InvalidArgumentError
from shardfit.run import TrainResult
from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig
from tests.shardfit_lightgbm.training import ROLES, plain_dataset, table, trained

TABLE, HELD_OUT = table(1_500), table(600, seed=1)
# Sorted by time: the last third, which one worker of three measures, is unlike the rest.
LAST = pa.concat_tables([HELD_OUT, table(600, seed=2).slice(590, 10)])
FAST = {"learning_rate": 0.4, "num_leaves": 31, "num_iterations": 60}


def rule_of_lightgbm(result: TrainResult, **options: Any) -> tuple[int, int]:
    """Feed the metrics of a run to LightGBM's own callback; return the round it stops in and the best one."""
    maximized = {"auc", "r2", "average_precision"}
    callback = lgb.early_stopping(verbose=False, **options)
    history = result.model.history
    rounds = len(next(iter(next(iter(history.values())).values())))
    model = lgb.Booster({"verbosity": -1}, lgb.Dataset(np.zeros((50, 1)), np.zeros(50)))
    for number in range(rounds):
        evaluated = [
            lgb.EvalResult(name, metric, values[number], metric in maximized)
            for name, metrics in history.items()
            for metric, values in metrics.items()
        ]
        try:
            callback(lgb.callback.CallbackEnv(model, {}, number, 0, 10**6, evaluated))
        except lgb.callback.EarlyStopException as stop:
            return number, stop.best_iteration
    return rounds - 1, -1


def rounds_of(result: TrainResult) -> int:
    return int(result.model.booster().current_iteration())


RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one metric": ({}, {"stopping_rounds": 5}),
    "several metrics": ({"metric": ["l1", "l2", "r2"]}, {"stopping_rounds": 5}),
    "to be maximized first": ({"metric": ["r2", "l1"]}, {"stopping_rounds": 4}),
    "the first only": ({"metric": ["huber", "l1"], "first_metric_only": True}, {"first_metric_only": True}),
    "a least difference": ({"early_stopping_min_delta": 0.02}, {"min_delta": 0.02}),
}


@pytest.mark.parametrize("name", RULES)
def test_training_stops_by_the_rule_of_lightgbm_whoever_measures(name: str) -> None:
    params, options = RULES[name]
    options = {"stopping_rounds": 3, **options}
    params = {**FAST, **params, "early_stopping_round": options["stopping_rounds"]}
    evals = {"held": HELD_OUT, "last": LAST, "few": HELD_OUT.slice(0, 2)}
    alone, together = (trained(TABLE, workers, params=params, evals=evals) for workers in (1, 3))
    last, best = rule_of_lightgbm(together, **options)
    assert best >= 0
    for result in (alone, together):
        assert rounds_of(result) == last + 1 < 60
        assert result.best_round == result.model.best_round == best
    assert together.metrics == alone.metrics
    assert together.model.text == alone.model.text


def test_one_worker_whose_rows_alone_improve_does_not_go_on_alone() -> None:
    # The other workers have no row of this set.
    evals = {"few": HELD_OUT.slice(0, 1)}
    alone, together = (
        trained(TABLE, workers, params={**FAST, "early_stopping_round": 3}, evals=evals) for workers in (1, 4)
    )
    assert rounds_of(together) == rounds_of(alone) == alone.best_round + 4 < 60
    assert together.model.text == alone.model.text


def test_it_stops_about_where_lightgbm_alone_stops() -> None:
    rows, held = table(3_000), table(1_500, seed=1)
    roles = replace(ROLES, features=("drift", "coarse", "normal"), categorical=())
    params = {"learning_rate": 0.2, "num_leaves": 7, "num_iterations": 300, "min_data_in_leaf": 5, "metric": "l2"}
    result = trained(rows, 2, roles, params={**params, "early_stopping_round": 10}, evals={"held": held})
    train, valid = (plain_dataset(result, part, "delay") for part in (rows, held))
    callbacks = [lgb.early_stopping(10, verbose=False)]
    booster = lgb.train({**params, "verbosity": -1}, train, valid_sets=[valid], callbacks=callbacks)
    best = min(result.metrics["held-l2"])
    assert best == pytest.approx(booster.best_score["valid_0"]["l2"], rel=0.01)
    assert result.metrics["held-l2"][result.best_round] == best


@pytest.mark.parametrize("first", [False, True])
def test_a_callback_of_lightgbm_stops_all_workers_alike(first: bool) -> None:
    metrics = {"metric": ["l1", "l2"]}

    def stopped_by(**params: Any) -> TrainResult:
        # One worker: threads would share the state of the callback.
        return trained(TABLE, 1, params={**FAST, **metrics, **params}, evals={"held": HELD_OUT})

    own = stopped_by(early_stopping_round=4, first_metric_only=first)
    theirs = stopped_by(callbacks=[lgb.early_stopping(4, first_metric_only=first, verbose=False)])
    assert theirs.metrics == own.metrics
    assert theirs.best_round == own.best_round
    assert rounds_of(theirs) == rounds_of(own) < 60


def test_a_callback_that_stops_on_one_worker_stops_all() -> None:
    calls: list[int] = []

    def stop(environment: Any) -> None:
        # Called by the worker of each thread; the first of them in round 4 stops.
        if environment.iteration == 4:
            calls.append(1)
            if len(calls) == 1:
                raise lgb.callback.EarlyStopException(2, [])

    result = trained(TABLE, 3, params={**FAST, "callbacks": [stop]}, evals={"held": HELD_OUT})
    assert len(calls) == 3
    assert (rounds_of(result), result.best_round) == (5, 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_callback_that_changes_parameters_changes_all_machines(workers: int) -> None:
    rates = [0.5, 0.1, 0.1, 0.3, 0.2, 0.05]
    callbacks = [lgb.reset_parameter(learning_rate=rates)]
    result = trained(TABLE, workers, params={"callbacks": callbacks}, evals={"held": HELD_OUT})
    shrinkage = [tree["shrinkage"] for tree in result.model.booster().dump_model()["tree_info"]]
    # The first tree has the start in its leaves, and so a shrinkage of its own.
    assert shrinkage[1:] == rates[1:]
    steady = trained(TABLE, 1, params={"learning_rate": 0.5}, evals={"held": HELD_OUT})
    assert result.metrics["held-l2"][0] == steady.metrics["held-l2"][0]
    assert result.metrics["held-l2"][1:] != steady.metrics["held-l2"][1:]
    assert result.model.text == trained(TABLE, 3, params={"callbacks": callbacks}).model.text


@pytest.mark.parametrize("workers", [1, 2])
def test_a_callback_cannot_change_what_shardfit_itself_does(workers: int) -> None:
    params = {"callbacks": [lgb.reset_parameter(bagging_fraction=lambda number: 0.5)]}
    with pytest.raises(InvalidArgumentError, match="bagging_fraction"):
        trained(TABLE, workers, params=params)


def test_rounds_after_the_best_one_are_not_used_for_predicting() -> None:
    estimator = LightGBMEstimator(
        60,
        params={"learning_rate": 0.5},
        early_stopping_rounds=3,
        scaling_config=LightGBMScalingConfig(1, 1, engine="inline"),
    )
    booster = estimator.fit(TABLE, ROLES.features, "delay", eval_set=HELD_OUT, categorical_cols=ROLES.categorical)
    history = estimator.get_eval_results()["eval"]["l2"]
    assert booster.best_iteration == int(np.argmin(history)) + 1
    assert len(history) == booster.current_iteration() == booster.best_iteration + 3
    predicted = estimator.predict(HELD_OUT).to_numpy()
    error = np.mean((predicted - HELD_OUT["delay"].to_numpy().astype(np.float32)) ** 2)
    assert error == pytest.approx(min(history), rel=1e-9)


def test_there_must_be_something_to_stop_by() -> None:
    with pytest.raises(InvalidArgumentError, match="evaluation set"):
        trained(TABLE, 1, params={"early_stopping_round": 3})
    with pytest.raises(InvalidArgumentError, match="metric"):
        trained(TABLE, 1, params={"early_stopping_round": 3, "metric": "None"}, evals={"held": HELD_OUT})

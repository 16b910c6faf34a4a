"""Going on from a checkpoint gives the model of an undisturbed run, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from shardfit.columns import ColumnRoles
from shardfit.errors import ArtifactNotFoundError, InvalidArgumentError
from shardfit.events import CheckpointStored, Event, MetricsReported
from shardfit.run import TrainResult
from shardfit.testing.tables import CATEGORICAL, FEATURES
from shardfit_xgboost import XGBEstimator
from tests.shardfit_xgboost.training import ROLES, model_of, table, trained

TABLE, HELD_OUT = table(3_000), table(800, seed=1)
RANKING = ColumnRoles(FEATURES, ("grade",), group="query", categorical=CATEGORICAL)


def squared_error(predictions: Any, data: xgb.DMatrix) -> tuple[Any, Any]:
    return predictions - data.get_label(), np.ones_like(predictions)


def boosted(stage: Path, rounds: int, workers: int = 1, **changes: Any) -> TrainResult:
    params = {"max_depth": 4, **changes.pop("params", {}), "n_estimators": rounds}
    return trained(TABLE, workers, evals={"held": HELD_OUT}, stage=str(stage), params=params, **changes)


def assert_same(found: TrainResult, expected: TrainResult) -> None:
    assert model_of(found.model.booster()) == model_of(expected.model.booster())
    assert found.metrics == expected.metrics
    assert found.model.history == expected.model.history
    assert found.model.best_iteration == expected.model.best_iteration


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"roles": replace(ROLES, weight="weight")},
    "subsample": {"params": {"subsample": 0.5}},
    "colsample_bytree": {"params": {"colsample_bytree": 0.5}},
    "colsample_bylevel": {"params": {"colsample_bylevel": 0.5}},
    "colsample_bynode": {"params": {"colsample_bynode": 0.5}},
    "num_parallel_tree": {"params": {"num_parallel_tree": 3, "subsample": 0.5, "colsample_bynode": 0.5}},
    "dart": {"params": {"booster": "dart", "rate_drop": 0.3, "sample_type": "weighted", "colsample_bytree": 0.5}},
    "custom objective": {"params": {"objective": squared_error, "subsample": 0.5}},
    "softprob": {
        "roles": replace(ROLES, label=("grade",)),
        "params": {"objective": "multi:softprob", "num_class": 3, "subsample": 0.7},
    },
    "several labels": {"roles": replace(ROLES, label=("delay", "amount"))},
    "ranking": {"roles": RANKING, "params": {"objective": "rank:ndcg"}},
    "pairs drawn at random": {
        "roles": RANKING,
        "params": {"objective": "rank:ndcg", "lambdarank_pair_method": "mean", "subsample": 0.5},
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_gives_the_bytes_of_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    whole = boosted(tmp_path, 20, **options)
    part = boosted(tmp_path, 11, checkpoint_every_rounds=11, **options)
    assert_same(boosted(tmp_path, 20, resume_from=part.run_id, **options), whole)


def test_a_run_can_go_on_on_another_number_of_workers(tmp_path: Path) -> None:
    options = {"params": {"subsample": 0.5, "colsample_bynode": 0.5}, "roles": replace(ROLES, weight="weight")}
    whole = boosted(tmp_path, 20, **options)
    part = boosted(tmp_path, 11, workers=3, checkpoint_every_rounds=11, **options)
    assert_same(boosted(tmp_path, 20, workers=2, resume_from=part.run_id, **options), whole)


def test_it_goes_on_from_a_run_a_checkpoint_or_a_finished_model(tmp_path: Path) -> None:
    stored: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, CheckpointStored):
            stored.append(event.artifact)

    whole = boosted(tmp_path, 9)
    estimator = XGBEstimator(
        4,
        params={"max_depth": 4},
        artifact_stage_location=str(tmp_path),
        checkpoint_every_rounds=3,
        observers=[watch],
    )
    roles: dict[str, Any] = {"input_cols": FEATURES, "label_col": "delay", "categorical_cols": CATEGORICAL}
    estimator.fit(TABLE, eval_set={"held": HELD_OUT}, **roles)
    part = estimator.result
    assert stored == [f"run/{part.run_id}/checkpoint-1-3"]
    for earlier in (part.run_id, stored[0], f"model/{part.run_id}"):
        assert_same(boosted(tmp_path, 9, resume_from=earlier), whole)
    longer = XGBEstimator(9, params={"max_depth": 4}, artifact_stage_location=str(tmp_path))
    longer.fit(TABLE, eval_set={"held": HELD_OUT}, resume_from=part, **roles)
    assert_same(longer.result, whole)


def test_a_run_without_a_checkpoint_goes_on_from_its_model(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    assert_same(boosted(tmp_path, 9, resume_from=part.run_id), boosted(tmp_path, 9))


@pytest.mark.parametrize("name", ["model/never", "never"])
def test_resuming_from_what_is_not_there_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="never"):
        boosted(tmp_path, 9, resume_from=name)


def test_early_stopping_remembers_the_rounds_before_the_checkpoint(tmp_path: Path) -> None:
    options = {"params": {"learning_rate": 1.0, "max_depth": 6, "early_stopping_rounds": 6}}
    whole = boosted(tmp_path, 60, **options)
    best, last = whole.model.best_iteration, whole.model.booster().num_boosted_rounds() - 1
    assert last == best + 6 < 59
    # Between the best round and the last one: a run that forgets would count six more rounds from there.
    part = boosted(tmp_path, best + 4, **options)
    resumed = boosted(tmp_path, 60, resume_from=part.run_id, **options)
    assert_same(resumed, whole)
    assert resumed.model.booster().best_iteration == best


def test_going_on_without_early_stopping_forgets_the_best_round(tmp_path: Path) -> None:
    part = boosted(tmp_path, 60, params={"learning_rate": 1.0, "early_stopping_rounds": 3})
    done = part.model.booster().num_boosted_rounds()
    resumed = boosted(tmp_path, done + 2, resume_from=part.run_id, params={"learning_rate": 1.0})
    assert resumed.model.best_iteration == done + 1
    assert "best_iteration" not in resumed.model.booster().attributes()


def test_observers_hear_of_new_rounds_only_and_the_result_has_all(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    heard: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, MetricsReported):
            heard.append(event.round)

    estimator = XGBEstimator(6, params={"max_depth": 4}, artifact_stage_location=str(tmp_path), observers=[watch])
    roles: dict[str, Any] = {"input_cols": FEATURES, "label_col": "delay", "categorical_cols": CATEGORICAL}
    estimator.fit(TABLE, eval_set={"held": HELD_OUT}, resume_from=part, **roles)
    assert heard == [4, 5]
    assert estimator.result.metrics["held-rmse"][:4] == part.metrics["held-rmse"]
    assert len(estimator.result.metrics["held-rmse"]) == 6


def test_values_of_a_new_evaluation_set_stand_in_their_rounds(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    resumed = trained(
        TABLE, evals={"new": HELD_OUT}, stage=str(tmp_path), resume_from=part.run_id, params={"n_estimators": 6}
    )
    values = resumed.model.history["new"]["rmse"]
    assert np.isnan(values).tolist() == [True] * 4 + [False] * 2


def test_more_rounds_on_other_data_leave_the_first_rounds_as_they_are(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    other = table(2_000, seed=7)
    resumed = trained(other, stage=str(tmp_path), resume_from=part.run_id, params={"n_estimators": 7})
    assert (
        model_of(resumed.model.booster()[:4])[0]["model"]["trees"]
        == model_of(part.model.booster())[0]["model"]["trees"]
    )
    assert model_of(resumed.model.booster())[1] == model_of(part.model.booster())[1]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"roles": replace(ROLES, features=FEATURES[::-1])}, "features"),
        ({"roles": replace(ROLES, features=FEATURES[1:])}, "features"),
        ({"roles": replace(ROLES, categorical=("shop",))}, "categorical_cols"),
        ({"roles": replace(ROLES, label=("delay", "amount"))}, "number of outputs"),
        (
            {"roles": replace(ROLES, label=("grade",)), "params": {"objective": "multi:softprob", "num_class": 3}},
            "num_class",
        ),
        ({"params": {"booster": "dart"}}, "booster"),
        ({"params": {"num_parallel_tree": 2}}, "num_parallel_tree"),
        ({"rounds": 3}, "n_estimators"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_a_worker_starts(
    changes: dict[str, Any], found: str, tmp_path: Path
) -> None:
    part = boosted(tmp_path, 4)
    with pytest.raises(InvalidArgumentError, match=found) as refused:
        boosted(tmp_path, changes.pop("rounds", 9), resume_from=part.run_id, **changes)
    assert "resuming" in refused.value.asked
    assert len(list(part.store.list("model/"))) == 1


def test_data_with_other_categories_is_refused(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    fewer = TABLE.slice(0, 2_000)
    with pytest.raises(InvalidArgumentError, match="z-late"):
        trained(fewer, stage=str(tmp_path), resume_from=part.run_id, params={"n_estimators": 9})


def test_unbiased_ranking_keeps_no_checkpoint_and_can_not_go_on(tmp_path: Path) -> None:
    binary = replace(RANKING, label=("late",))
    options = {"roles": binary, "params": {"objective": "rank:ndcg", "lambdarank_unbiased": True}}
    part = boosted(tmp_path, 3, checkpoint_every_rounds=1, **options)
    assert not list(part.store.list(f"run/{part.run_id}/checkpoint"))
    with pytest.raises(InvalidArgumentError, match="lambdarank_unbiased"):
        boosted(tmp_path, 5, resume_from=part.run_id, **options)


def test_a_metric_that_is_not_a_number_does_not_keep_a_model_from_being_published(tmp_path: Path) -> None:
    one_class = TABLE.filter(TABLE["late"].to_numpy() == 1).slice(0, 300)
    options = {"objective": "binary:logistic", "eval_metric": "auc", "n_estimators": 3}
    roles = replace(ROLES, label=("late",))
    result = trained(
        TABLE, roles=roles, evals={"one": one_class}, params=options, stage=str(tmp_path), checkpoint_every_rounds=1
    )
    assert np.isnan(result.metrics["one-auc"]).all()
    assert list(result.store.list("model/")) == [f"model/{result.run_id}"]

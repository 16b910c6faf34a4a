"""Going on from a checkpoint gives the model of an undisturbed run, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from shardfit.columns import ColumnRoles
from shardfit.errors import ArtifactNotFoundError, InvalidArgumentError
from shardfit.run import TrainResult
from shardfit.testing.tables import CATEGORICAL, FEATURES
from tests.shardfit_lightgbm.training import ROLES, table, trained, trees_of

TABLE, HELD_OUT = table(1_500), table(400, seed=1)
CLASSES = replace(ROLES, label=("grade",))
RANKING = ColumnRoles(FEATURES, ("grade",), group="query", categorical=CATEGORICAL)


def squared_error(predictions: Any, data: lgb.Dataset) -> tuple[Any, Any]:
    return predictions - data.get_label(), np.ones_like(predictions)


def boosted(stage: Path, rounds: int, workers: int = 1, **changes: Any) -> TrainResult:
    params = {**changes.pop("params", {}), "num_iterations": rounds}
    return trained(TABLE, workers, evals={"held": HELD_OUT}, stage=str(stage), params=params, **changes)


def assert_same(found: TrainResult, expected: TrainResult) -> None:
    assert found.model.text == expected.model.text
    assert found.metrics == expected.metrics
    assert found.model.history == expected.model.history
    assert found.model.best_round == expected.model.best_round


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"roles": replace(ROLES, weight="weight")},
    "bagging": {"params": {"bagging_fraction": 0.5, "bagging_freq": 3}},
    "feature_fraction": {"params": {"feature_fraction": 0.5}},
    "feature_fraction_bynode": {"params": {"feature_fraction_bynode": 0.5, "feature_fraction_seed": 5}},
    "extra_trees": {"params": {"extra_trees": True, "feature_fraction": 0.5}},
    "custom objective": {"params": {"objective": squared_error, "bagging_fraction": 0.5, "bagging_freq": 1}},
    "multiclass": {"roles": CLASSES, "params": {"objective": "multiclass", "num_class": 3}},
    "a class of one row in a hundred": {
        "roles": CLASSES,
        "params": {"objective": "multiclassova", "num_class": 4, "min_sum_hessian_in_leaf": 60},
    },
    "binary": {"roles": replace(ROLES, label=("late",)), "params": {"objective": "binary", "is_unbalance": True}},
    "poisson": {"roles": replace(ROLES, label=("claims",)), "params": {"objective": "poisson"}},
    "l1": {"params": {"objective": "l1"}},
    "ranking": {"roles": RANKING, "params": {"objective": "lambdarank"}},
    "initial scores in a column": {"roles": replace(ROLES, base_margin=("margin",))},
    "no initial scores": {"params": {"boost_from_average": False}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_gives_the_bytes_of_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    whole = boosted(tmp_path, 12, **options)
    part = boosted(tmp_path, 7, checkpoint_every_rounds=7, **options)
    assert_same(boosted(tmp_path, 12, resume_from=part.run_id, **options), whole)


def test_a_run_can_go_on_on_another_number_of_workers(tmp_path: Path) -> None:
    options = {"params": {"bagging_fraction": 0.5, "bagging_freq": 2, "feature_fraction": 0.6}}
    whole = boosted(tmp_path, 12, **options)
    part = boosted(tmp_path, 7, workers=3, checkpoint_every_rounds=7, **options)
    assert_same(boosted(tmp_path, 12, workers=2, resume_from=part.run_id, **options), whole)


def test_it_goes_on_from_a_checkpoint_before_the_end_and_from_a_finished_model(tmp_path: Path) -> None:
    whole = boosted(tmp_path, 9)
    part = boosted(tmp_path, 5, checkpoint_every_rounds=2)
    (checkpoint,) = part.store.list(f"run/{part.run_id}/checkpoint-")
    assert checkpoint.endswith("-4")
    for earlier in (part.run_id, checkpoint, f"model/{part.run_id}"):
        assert_same(boosted(tmp_path, 9, resume_from=earlier), whole)
    # Nothing is left to do.
    assert_same(boosted(tmp_path, 9, resume_from=f"model/{whole.run_id}"), whole)


def test_early_stopping_remembers_the_rounds_before_the_checkpoint(tmp_path: Path) -> None:
    options = {"params": {"learning_rate": 0.6, "num_leaves": 31, "early_stopping_round": 6, "metric": ["l2", "l1"]}}
    whole = boosted(tmp_path, 80, **options)
    best, last = whole.model.best_round, whole.model.booster().current_iteration() - 1
    assert last == best + 6 < 79
    # Between the best round and the last one: a run that forgets would count six more rounds from there.
    part = boosted(tmp_path, best + 4, **options)
    assert_same(boosted(tmp_path, 80, resume_from=part.run_id, **options), whole)


def no_number(predictions: Any, labels: Any, weights: Any) -> tuple[float, float]:
    return 0.0, 0.0


def test_a_metric_that_is_no_number_counts_as_before(tmp_path: Path) -> None:
    options = {"params": {"metric": "None", "custom_metric": no_number, "early_stopping_round": 6}}
    whole = boosted(tmp_path, 20, **options)
    assert whole.model.booster().current_iteration() == 7
    part = boosted(tmp_path, 4, **options)
    resumed = boosted(tmp_path, 20, resume_from=part.run_id, **options)
    assert resumed.model.text == whole.model.text
    assert resumed.best_round == whole.best_round == 0


def test_values_of_a_new_evaluation_set_stand_in_their_rounds(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    params = {"num_iterations": 6}
    resumed = trained(TABLE, evals={"new": HELD_OUT}, stage=str(tmp_path), resume_from=part.run_id, params=params)
    assert np.isnan(resumed.model.history["new"]["l2"]).tolist() == [True] * 4 + [False] * 2


def test_more_rounds_on_other_data_leave_the_first_rounds_as_they_are(tmp_path: Path) -> None:
    part = boosted(tmp_path, 4)
    other = table(1_000, seed=7)
    resumed = trained(other, stage=str(tmp_path), resume_from=part.run_id, params={"num_iterations": 7})
    assert trees_of(resumed).startswith(trees_of(part).rstrip())
    assert resumed.model.booster().current_iteration() == 7


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"roles": replace(ROLES, features=FEATURES[::-1])}, "features"),
        ({"roles": replace(ROLES, features=FEATURES[1:])}, "features"),
        ({"roles": replace(ROLES, categorical=("shop",))}, "categorical_cols"),
        ({"roles": replace(ROLES, base_margin=("margin",))}, "base_margin_col"),
        ({"roles": CLASSES, "params": {"objective": "multiclass", "num_class": 3}}, "num_class"),
        ({"params": {"boosting": "dart"}}, "dart"),
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
    fewer = TABLE.slice(0, 1_000)
    with pytest.raises(InvalidArgumentError, match="z-late"):
        trained(fewer, stage=str(tmp_path), resume_from=part.run_id, params={"num_iterations": 9})


def test_dart_keeps_no_checkpoint(tmp_path: Path) -> None:
    part = boosted(tmp_path, 3, checkpoint_every_rounds=1, params={"boosting": "dart"})
    assert not list(part.store.list(f"run/{part.run_id}/checkpoint"))


def test_resuming_from_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="never"):
        boosted(tmp_path, 9, resume_from="never")

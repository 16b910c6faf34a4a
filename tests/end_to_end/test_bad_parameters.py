"""P6: parameters that do not exist, or cannot be used here, are refused by name before a worker starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardfit.connector import DataConnector
from shardfit.engines.inline import InlineEngine
from shardfit.errors import (
    InvalidArgumentError,
    InvalidJobError,
    ShardfitError,
    UnknownNameError,
    UnknownParameterError,
)
from shardfit.testing.tables import awkward_table
from tests.end_to_end.fitting import failure, fitted

DATA = DataConnector.from_arrow(awkward_table(400))


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker start."""

    def start(*arguments: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(InlineEngine, "start", start)


def refused(stage: Path, kind: type[ShardfitError], *parts: str, **arguments: Any) -> None:
    """Check that the arguments are refused before a plan is made, in words that hold `parts`."""
    left = failure(DATA, stage, kind, **arguments)
    assert left.seen == {"RunStarted", "RunEnded"}
    assert left.record.status == "failed"
    assert isinstance(left.error, ShardfitError)
    for part in parts:
        assert part in left.message


@pytest.mark.usefixtures("no_worker")
class TestRefused:
    @pytest.mark.parametrize(
        ("given", "nearest"),
        [
            ("max_deph", "max_depth"),
            ("learning_rat", "learning_rate"),
            ("n_estimator", "n_estimators"),
            ("colsample_bytre", "colsample_bytree"),
            ("lamda", "lambda"),
        ],
    )
    def test_an_unknown_parameter_comes_with_the_nearest_name(self, tmp_path: Path, given: str, nearest: str) -> None:
        refused(tmp_path, UnknownParameterError, f"'{given}'", f"'{nearest}'", params={given: 1})

    def test_a_name_like_no_other_is_refused_too(self, tmp_path: Path) -> None:
        refused(tmp_path, UnknownParameterError, "'qqqqqq'", "no such parameter", params={"qqqqqq": 1})

    @pytest.mark.parametrize(
        ("name", "value", "alternative"),
        [
            ("tree_method", "approx", "'hist'"),
            ("tree_method", "exact", "'hist'"),
            ("booster", "gblinear", "'gbtree'"),
            ("objective", "survival:cox", "survival:aft"),
            ("objective", "survival:aft", "logarithm"),
            ("objective", "reg:linear", "reg:squarederror"),
            ("device", "cuda", "use_gpu"),
            ("device", "cpu", "use_gpu"),
            ("sampling_method", "gradient_based", "'uniform'"),
        ],
    )
    def test_what_can_not_be_the_same_on_shards_comes_with_an_alternative(
        self, tmp_path: Path, name: str, value: str, alternative: str
    ) -> None:
        refused(tmp_path, InvalidArgumentError, f"'{name}'", f"'{value}'", alternative, params={name: value})

    def test_one_parameter_under_two_names(self, tmp_path: Path) -> None:
        params = {"eta": 0.1, "learning_rate": 0.2}
        refused(tmp_path, InvalidArgumentError, "'learning_rate'", "0.1", "0.2", params=params)

    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("n_estimators", 0, "1 or more"),
            ("n_estimators", "ten", "'ten'"),
            ("n_estimators", 1.5, "1.5"),
            ("subsample", 0.0, "above 0"),
            ("subsample", 1.5, "at most 1"),
            ("subsample", "half", "'half'"),
            ("max_bin", 1, "2 or more"),
            ("max_bin", "many", "'many'"),
            ("num_parallel_tree", 0, "1 or more"),
            ("num_class", "three", "'three'"),
            ("missing", "nothing", "'nothing'"),
            ("max_depth", "deep", "deep"),
            ("max_depth", -1, "-1"),
            ("learning_rate", "fast", "fast"),
            ("learning_rate", -0.1, "-0.1"),
            ("grow_policy", "sideways", "sideways"),
            ("colsample_bytree", 1.5, "1.5"),
            ("multi_strategy", "none", "none"),
            ("base_score", 2.0, "must be in (0,1)"),
            ("monotone_constraints", {"wind": 1}, "Constrained features"),
        ],
    )
    def test_a_value_out_of_range_is_named(self, tmp_path: Path, name: str, value: object, shown: str) -> None:
        params = {"max_depth": 4, name: value}
        refused(tmp_path, InvalidArgumentError, f"'{name}'", repr(value), shown, params=params)

    @pytest.mark.parametrize(
        ("objective", "params", "parts"),
        [
            ("binary:logistics", {}, ["'binary:logistics'", "binary:logistic,"]),
            ("multi:softprob", {}, ["num_class", "None"]),
            ("multi:softprob", {"num_class": 1}, ["num_class", "1"]),
            ("reg:quantileerror", {"quantile_alpha": 1.5}, ["quantile_alpha", "1.5"]),
            ("reg:quantileerror", {"quantile_alpha": [0.5, "low"]}, ["quantile_alpha", "'low'"]),
            ("reg:tweedie", {"tweedie_variance_power": 3}, ["tweedie_variance_power", "3"]),
        ],
    )
    def test_an_objective_that_does_not_exist_or_lacks_something(
        self, tmp_path: Path, objective: str, params: dict[str, Any], parts: list[str]
    ) -> None:
        refused(tmp_path, InvalidArgumentError, *parts, objective=objective, params=params)

    @pytest.mark.parametrize(
        ("metric", "parts"),
        [("logloos", ["'logloos'", "'logloss'"]), ("error@", ["error@"]), ("cox-nloglik", ["'cox-nloglik'"])],
    )
    def test_a_metric_that_does_not_exist(self, tmp_path: Path, metric: str, parts: list[str]) -> None:
        refused(tmp_path, InvalidArgumentError, *parts, params={"eval_metric": metric})

    def test_a_metric_of_groups_without_groups(self, tmp_path: Path) -> None:
        more = {"params": {"eval_metric": ["logloss", "ndcg@5"]}, "evals": {"eval": DATA}}
        refused(tmp_path, InvalidArgumentError, "'ndcg@5'", "group_col", **more)

    def test_a_metric_that_is_no_function(self, tmp_path: Path) -> None:
        refused(tmp_path, InvalidArgumentError, "custom_metric", "'mine'", custom_metric="mine")

    @pytest.mark.parametrize("rounds", [0, True, 2.5], ids=repr)
    def test_rounds_of_patience_that_are_no_whole_number(self, tmp_path: Path, rounds: Any) -> None:
        more = {"early_stopping_rounds": rounds, "evals": {"eval": DATA}}
        refused(tmp_path, InvalidArgumentError, "'early_stopping_rounds'", repr(rounds), **more)

    def test_early_stopping_without_anything_to_measure(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"early_stopping_rounds.*found 3.*eval_set"):
            fitted(DATA, early_stopping_rounds=3)

    def test_a_sharding_strategy_that_nobody_provides(self, tmp_path: Path) -> None:
        refused(tmp_path, UnknownNameError, "'row'", "'rows'", sharding="row")

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ({"workers": 0}, ["workers", "0"]),
            ({"workers": "two"}, ["workers", "'two'"]),
            ({"cpus": -2}, ["cpus_per_worker", "-2"]),
            ({"engine": "spark"}, ["engine", "'spark'"]),
            ({"seed": -1}, ["seed", "-1"]),
            ({"max_attempts": 0}, ["max_attempts", "0"]),
            ({"checkpoint_every_rounds": -5}, ["checkpoint_every_rounds", "-5"]),
            ({"evals": {"train": DATA}}, ["evals", "'train'"]),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_an_argument_that_is_no_job(self, arguments: dict[str, Any], parts: list[str]) -> None:
        with pytest.raises(InvalidJobError) as caught:
            fitted(DATA, **{"engine": "inline", **arguments})
        for part in parts:
            assert part in str(caught.value)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    params = {"n_estimators": np.int64(4), "subsample": np.float32(0.5), "max_bin": np.int32(16), "missing": np.nan}
    estimator = fitted(DATA, stage=tmp_path, params=params)
    assert estimator.get_booster().num_boosted_rounds() == 4

"""LightGBM's network belongs to a thread: fits side by side, one after another, and beside LightGBM itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from shardfit_lightgbm import LightGBMEstimator, LightGBMScalingConfig, second_machine
from shardfit_lightgbm.library import parallel_levels
from shardfit_lightgbm.second_machine import SecondMachine
from tests.shardfit_lightgbm.training import ROLES, table, trained

TABLES = [table(900, seed) for seed in range(3)]
pytestmark = pytest.mark.timeout(120)


def inline(rows: Any, cpus: int = 1, **changes: Any) -> str:
    scaling = LightGBMScalingConfig(1, cpus, engine="inline")
    # One number for all: LightGBM keeps it for the whole process, and buffers of one size are used with another.
    params = {"num_leaves": 15, "num_threads": 1, **changes}
    estimator = LightGBMEstimator(15, params=params, scaling_config=scaling)
    estimator.fit(rows, ROLES.features, "delay", categorical_cols=ROLES.categorical, eval_set=rows)
    return str(estimator.result.model.text)


def test_fits_at_once_in_threads_of_one_process_give_what_each_gives_alone() -> None:
    expected = [inline(rows) for rows in TABLES]
    with ThreadPoolExecutor(len(TABLES)) as pool:
        for _ in range(3):
            assert list(pool.map(inline, TABLES)) == expected


def test_one_fit_after_another_on_the_same_thread() -> None:
    first = inline(TABLES[0])
    assert [inline(TABLES[0]) for _ in range(3)] == [first] * 3
    with pytest.raises(Exception, match="trouble"):
        inline(TABLES[0], callbacks=[fails])
    assert inline(TABLES[0]) == first
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shardfit-lightgbm")]


def fails(environment: Any) -> None:
    raise ZeroDivisionError("trouble")


def test_lightgbm_itself_trains_alone_before_and_after() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 3))

    def plain() -> str:
        data = lgb.Dataset(features, features[:, 0] * features[:, 1])
        return str(lgb.train({"verbosity": -1, "deterministic": True, "num_threads": 1}, data, 5).model_to_string())

    expected = plain()
    for workers in (1, 3):
        trained(TABLES[0], workers)
        assert plain() == expected
    with pytest.raises(Exception, match="trouble"):
        trained(TABLES[0], 3, params={"callbacks": [fails]})
    assert plain() == expected


@pytest.mark.parametrize("objective", ["l1", "regression"])
def test_a_callback_may_train_with_lightgbm_itself(objective: str) -> None:
    def predicts(environment: Any) -> None:
        # Other code on the thread that trains.
        lgb.Booster(model_str=environment.model.model_to_string()).predict(np.zeros((2, len(ROLES.features))))

    roles = replace(ROLES, weight="weight")
    quiet = trained(TABLES[0], 1, roles, params={"objective": objective}).model.text
    assert trained(TABLES[0], 1, roles, params={"objective": objective, "callbacks": [predicts]}).model.text == quiet


def test_the_second_machine_computes_in_its_thread_alone_and_the_first_one_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = threading.local()
    monkeypatch.setattr(second_machine, "parallel_levels", lambda: getattr(levels, "number", 3))
    monkeypatch.setattr(second_machine, "set_parallel_levels", lambda given: setattr(levels, "number", given))
    with SecondMachine() as second:
        assert second.begin(second_machine.parallel_levels).result() == 0
        assert second_machine.parallel_levels() == 3


def test_openmp_does_as_the_second_machine_expects_or_as_before() -> None:
    """Whichever OpenMP this process has loaded first; PyTorch brings one that knows no difference between threads."""
    levels = parallel_levels()
    with SecondMachine() as second:
        assert second.begin(parallel_levels).result() in (0, levels)
        assert parallel_levels() == levels


def test_where_openmp_knows_no_difference_between_threads_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_process = [3]
    monkeypatch.setattr(second_machine, "parallel_levels", lambda: of_the_process[0])
    monkeypatch.setattr(second_machine, "set_parallel_levels", lambda given: of_the_process.__setitem__(0, given))
    with SecondMachine():
        assert of_the_process == [3]

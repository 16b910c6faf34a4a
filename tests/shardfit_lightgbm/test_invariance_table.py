"""Every option is exact, or the plan says by name that it is not; the page of the docs holds what the command found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.invariance import LIGHTGBM
from benchmarks.invariance_cases import invariance_table
from benchmarks.invariance_findings import BEGIN, END, case_job, compare
from shardfit.errors import InvalidArgumentError
from shardfit.testing.worker_threads import train_on_threads
from shardfit_lightgbm.config import configure
from shardfit_lightgbm.invariance import CONSEQUENCE, CUSTOM, MONOTONE, invariance_warnings

CASES = {case.name: case for case in LIGHTGBM.cases}
TABLE = invariance_table(6_000)
# By name, so that a change of either list is a decision.
NOT_EXACT = {
    "regression_l1",
    "quantile",
    "mape",
    "a function of other rows too",
    "rank_xendcg",
    "bagging, regression_l1",
    "pos_bagging_fraction, neg_bagging_fraction",
    "bagging_by_query",
    "goss",
    "extra_trees, feature_fraction, dart",
    "cegb_penalty_feature_coupled",
    "cegb_penalty_feature_lazy",
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_depends_on_the_workers_if_and_only_if_the_plan_warns(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    job = case_job(LIGHTGBM, case, TABLE, TABLE.slice(0, 500), stage=str(tmp_path))
    # Few, since each takes a while; other numbers of workers, and processes: test_invariance.py.
    alone, other = [train_on_threads(job, workers) for workers in (1, 3)]
    finding = compare(LIGHTGBM, case, alone, [other], TABLE)
    assert finding.as_announced
    assert (finding.verdict == "not") == (name in NOT_EXACT)
    assert (finding.difference > 0) == (name in NOT_EXACT)
    assert finding.reason or finding.verdict == "exact"
    # With one worker there is nothing to warn about.
    assert not any(CONSEQUENCE in warning or warning == CUSTOM for warning in alone.warnings)


def test_every_objective_and_booster_is_in_the_table() -> None:
    from shardfit_lightgbm.objectives import _START

    assert set(_START) <= {str(case.params.get("objective", "regression")) for case in CASES.values()}
    assert {"gbdt", "dart"} <= {str(case.params.get("boosting", "gbdt")) for case in CASES.values()}


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"objective": "l1"}, "regression_l1"),
        ({"objective": "xendcg"}, "rank_xendcg"),
        ({"data_sample_strategy": "goss"}, "goss"),
        ({"boosting": "goss"}, "goss"),
        ({"bagging_freq": 1, "pos_bagging_fraction": 0.5}, "by class"),
        ({"bagging_freq": 1, "bagging_fraction": 0.5, "bagging_by_query": True}, "by query"),
        ({"boosting": "dart", "extra_trees": True, "colsample_bytree": 0.5}, "extra_trees and feature_fraction"),
        ({"cegb_penalty_feature_lazy": [1.0, 2.0]}, "cegb_penalty_feature_coupled or _lazy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_warning_names_the_option(params: dict[str, object], named: str) -> None:
    config = configure(params)
    (warning,) = invariance_warnings(config, 2)
    assert named in warning
    assert not invariance_warnings(config, 1)


@pytest.mark.parametrize(
    "params",
    [
        {"extra_trees": True, "feature_fraction": 0.5},
        {"bagging_freq": 1, "bagging_fraction": 0.5},
        {"bagging_by_query": True},
    ],
    ids=str,
)
def test_nothing_is_said_of_what_is_exact(params: dict[str, object]) -> None:
    assert not invariance_warnings(configure(params), 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_another_way_of_keeping_constraints_is_named_at_any_number_of_workers(workers: int) -> None:
    config = configure({"monotone_constraints": [1, 0], "monotone_constraints_method": "advanced"})
    assert invariance_warnings(config, workers) == (MONOTONE.format(method="advanced"),)


@pytest.mark.parametrize("value", [True, 1, "true"])
def test_what_lightgbm_does_wrong_on_several_machines_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'use_quantized_grad'.*wrong histograms"):
        configure({"use_quantized_grad": value})


def test_a_lone_worker_is_one_machine_where_each_draws_rows() -> None:
    """The second machine's single row would be drawn out, and LightGBM would fail."""
    drawing = ({"boosting": "goss"}, {"pos_bagging_fraction": 0.5, "bagging_freq": 1})
    assert not any(configure({"objective": "binary", **params}).trains_as_two for params in drawing)
    assert configure({"objective": "binary", "bagging_fraction": 0.5, "bagging_freq": 1}).trains_as_two


def test_the_page_has_every_case_with_the_verdict_that_tests_hold_it_to() -> None:
    table = LIGHTGBM.page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = dict(re.findall(r"^\| (.+?) \| (exact|made exact|\*\*not\*\*)", table, re.MULTILINE))
    assert {name for name, verdict in rows.items() if verdict == "**not**"} == NOT_EXACT
    assert rows.keys() == CASES.keys()
    assert {name for name, verdict in rows.items() if verdict == "made exact"} == {
        name for name, case in CASES.items() if case.made_by and name not in NOT_EXACT
    }

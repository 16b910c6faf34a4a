"""Every option is exact, or the plan says by name that it is not; the page of the docs holds what the command found."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.invariance import XGBOOST
from benchmarks.invariance_cases import Case, invariance_table
from benchmarks.invariance_findings import BEGIN, END, case_job, compare, render, update_page
from shardfit.errors import InvalidArgumentError
from shardfit.testing.worker_threads import train_on_threads
from shardfit_xgboost.config import configure
from shardfit_xgboost.invariance import CONSEQUENCE, CUSTOM, invariance_warnings
from tests.shardfit_xgboost.training import ROLES, trained

CASES = {case.name: case for case in XGBOOST.cases}
TABLE = invariance_table(6_000)
# By name, so that a change of either list is a decision.
NOT_EXACT = {
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:quantileerror, several levels",
    "a function of other rows too",
    "rank:ndcg, pair method mean",
    "rank:pairwise, pair method mean",
    "rank:ndcg, lambdarank_unbiased",
    "rank:ndcg, subsample",
    "rank:ndcg, weights",
    "subsample, num_parallel_tree",
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_depends_on_the_workers_if_and_only_if_the_plan_warns(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    job = case_job(XGBOOST, case, TABLE, TABLE.slice(0, 500), stage=str(tmp_path))
    # Few, since each takes a while; other numbers of workers, and processes: test_invariance.py.
    alone, other = [train_on_threads(job, workers) for workers in (1, 3)]
    finding = compare(XGBOOST, case, alone, [other], TABLE)
    assert finding.as_announced
    assert (finding.verdict == "not") == (name in NOT_EXACT)
    assert (finding.difference > 0) == (name in NOT_EXACT)
    assert finding.reason or finding.verdict == "exact"
    # With one worker there is nothing to warn about.
    assert not any(CONSEQUENCE in warning or warning == CUSTOM for warning in alone.warnings)


def test_every_objective_is_in_the_table() -> None:
    from shardfit_xgboost.objectives import _START

    measured = {str(case.params.get("objective", "reg:squarederror")) for case in CASES.values()}
    assert set(_START) <= measured


@pytest.mark.parametrize(
    ("params", "weighted", "named"),
    [
        ({"objective": "reg:absoluteerror"}, False, "reg:absoluteerror"),
        ({"objective": "rank:ndcg", "lambdarank_pair_method": "mean"}, False, "lambdarank_pair_method"),
        ({"objective": "rank:ndcg", "lambdarank_unbiased": True}, False, "lambdarank_unbiased"),
        ({"objective": "rank:ndcg", "subsample": 0.5}, False, "subsample"),
        ({"objective": "rank:ndcg"}, True, "weights of groups"),
        ({"subsample": 0.5, "num_parallel_tree": 4}, False, "num_parallel_tree"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_warning_names_the_option(params: dict[str, object], weighted: bool, named: str) -> None:
    config = configure(params)
    (warning,) = invariance_warnings(config, 2, weighted)
    assert named in warning
    assert not invariance_warnings(config, 1, weighted)


@pytest.mark.parametrize(
    ("params", "alternative"),
    [
        ({"tree_method": "approx"}, "hist"),
        ({"tree_method": "exact"}, "hist"),
        ({"booster": "gblinear"}, "gbtree"),
        ({"objective": "survival:cox"}, "survival:aft"),
        ({"sampling_method": "gradient_based"}, "uniform"),
    ],
)
def test_what_can_not_be_divided_is_refused_with_the_alternative(params: dict[str, str], alternative: str) -> None:
    with pytest.raises(InvalidArgumentError, match=alternative):
        configure(params)


def test_trees_of_several_outputs_refuse_categories_before_a_worker_starts() -> None:
    with pytest.raises(InvalidArgumentError, match="one_output_per_tree"):
        trained(TABLE, params={"multi_strategy": "multi_output_tree"}, roles=ROLES)


def test_long_runs_stay_exact_where_gradients_span_many_orders_of_magnitude(tmp_path: Path) -> None:
    case = CASES["reg:tweedie"]
    job = case_job(XGBOOST, case, TABLE, TABLE.slice(0, 500), rounds=120, stage=str(tmp_path))
    alone, other = (train_on_threads(job, workers) for workers in (1, 3))
    assert compare(XGBOOST, case, alone, [other], TABLE).verdict == "made exact"


def test_the_page_has_every_case_with_the_verdict_that_tests_hold_it_to() -> None:
    table = XGBOOST.page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = dict(re.findall(r"^\| (.+?) \| (exact|made exact|\*\*not\*\*)", table, re.MULTILINE))
    assert {name for name, verdict in rows.items() if verdict == "**not**"} == NOT_EXACT
    assert rows.keys() == CASES.keys()
    assert {name for name, verdict in rows.items() if verdict == "made exact"} == {
        name for name, case in CASES.items() if case.made_by and name not in NOT_EXACT
    }


def test_the_table_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before {BEGIN} old {END} after")
    update_page(page, "new")
    assert page.read_text() == f"before {BEGIN}\n\nnew\n{END} after"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="marker"):
        update_page(page, "new")


def test_a_finding_that_differs_is_shown_with_its_size_and_reason(tmp_path: Path) -> None:
    case = Case("reg:absoluteerror", "objective", {"objective": "reg:absoluteerror"})
    job = case_job(XGBOOST, case, TABLE, TABLE.slice(0, 500), stage=str(tmp_path))
    finding = compare(XGBOOST, case, train_on_threads(job, 1), [train_on_threads(job, 3)], TABLE)
    assert finding.verdict == "not"
    assert np.isfinite(finding.difference)
    size = f"**not**: {finding.difference:.2f}; 8 of 8 trees; {finding.metric:.1%}"
    assert f"| reg:absoluteerror | {size} | {finding.reason} |" in render([finding])

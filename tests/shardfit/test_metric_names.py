from typing import Any

import pytest

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit.metrics import metric_named


@pytest.mark.parametrize(
    ("name", "reported", "maximize"),
    [
        ("rmse", "rmse", False),
        ("mape", "mape", False),
        ("error@0.5", "error", False),
        ("error@0.70", "error@0.7", False),
        ("tweedie-nloglik@1.50", "tweedie-nloglik@1.5", False),
        ("auc", "auc", True),
        ("aucpr", "aucpr", True),
        ("map", "map", True),
        ("ndcg-", "ndcg-", True),
        ("ndcg@10-", "ndcg@10-", True),
        ("pre@7", "pre@7", True),
    ],
)
def test_names_are_reported_as_xgboost_reports_them(name: str, reported: str, maximize: bool) -> None:
    metric = metric_named(name)
    assert (metric.name, metric.maximize) == (reported, maximize)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("auk", "auc"), ("log_loss", "logloss"), ("ndgc@5", "ndcg"), ("rsme", "rmse"), ("ndcg-@5", "ndcg")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownParameterError, match=f"Did you mean {hint!r}"):
        metric_named(name)


@pytest.mark.parametrize("name", ["cox-nloglik", "ams@0.15", "aft-nloglik", "interval-regression-accuracy"])
def test_a_metric_without_an_exact_form_is_refused(name: str) -> None:
    with pytest.raises(UnknownParameterError, match="no exact form"):
        metric_named(name)


@pytest.mark.parametrize(
    "name",
    ["rmse@3", "auc@2", "merror@1", "error@x", "error@nan", "tweedie-nloglik", "tweedie-nloglik@2", "ndcg@0",
     "ndcg@2.0", "map@x", "pre@-", "ndcg@", "error@", "rmse@", "quantile"],
)  # fmt: skip
def test_a_name_that_can_not_be_parsed_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be used"):
        metric_named(name)


@pytest.mark.parametrize(
    "options", [{"name": "mphe", "huber_slope": 0.0}, {"name": "quantile", "quantile_alpha": (0.5, 1.0)}]
)
def test_an_option_that_can_not_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be used"):
        metric_named(**options)

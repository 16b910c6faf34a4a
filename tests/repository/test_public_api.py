"""The public names, spelt out: one that goes needs a line in CHANGELOG.md, one that comes is added here."""

from __future__ import annotations

import importlib
import inspect

import pytest

PUBLIC: dict[str, set[str]] = {
    "shardfit": {
        "ArtifactStore",
        "BinnedTrainer",
        "Cancellation",
        "Claim",
        "ColumnRoles",
        "DataConnector",
        "DataSource",
        "Event",
        "Fragment",
        "Job",
        "Registry",
        "RunPlan",
        "ShardPlan",
        "ShardedDataConnector",
        "ShardfitError",
        "TrainResult",
        "Trainer",
        "WorkerContext",
        "WorkerLayout",
        "World",
        "default_registry",
        "hookimpl",
        "plan_run",
        "resume_run",
        "train",
    },
    "shardfit.testing": {"ScalingKit", "ShardingKit", "SourceKit", "StoreKit", "TrainerKit"},
    "shardfit_lightgbm": {"LightGBMEstimator", "LightGBMScalingConfig"},
    "shardfit_pytorch": {
        "PyTorchDistributor",
        "PyTorchDistributorResult",
        "PyTorchScalingConfig",
        "WorkerResourceConfig",
        "get_context",
    },
    "shardfit_stages": {"Catalogue", "StageTarget", "use_catalogue"},
    "shardfit_xgboost": {"XGBEstimator", "XGBScalingConfig"},
}


def names_of(package: str) -> list[str]:
    return list(getattr(importlib.import_module(package), "__all__", []))


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_the_public_names_are_these(package: str) -> None:
    assert set(names_of(package)) == PUBLIC[package]


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_public_names_are_listed_once_and_sorted(package: str) -> None:
    names = names_of(package)
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in sorted(PUBLIC) for name in sorted(PUBLIC[package])]
)
def test_every_public_name_exists_and_says_what_it_is(package: str, name: str) -> None:
    found = getattr(importlib.import_module(package), name)
    if inspect.isclass(found) or inspect.isroutine(found):
        summary = (inspect.getdoc(found) or "").split("\n")[0]
        assert summary.endswith((".", ":"))
        # What dataclasses write by themselves says nothing.
        assert not summary.startswith(f"{name}(")

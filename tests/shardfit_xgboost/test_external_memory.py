"""Out of core: the same bytes as in memory, whatever the table, and nothing left on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.columns import ColumnRoles
from shardfit.errors import CacheError, InfeasibleRequestError, InvalidArgumentError
from shardfit.job import Job
from shardfit.registry import default_registry
from shardfit.run_plan import plan_run
from shardfit.scaling import ClusterResources, Node
from shardfit_xgboost import XGBEstimator, storage

from .training import ROLES, table, trained

NUMBERS = ColumnRoles(("a", "b", "c"), ("y",))


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAGE_BYTES", (2**14,))


def numbers(rows: int = 5_000, missing: float = 0.0) -> pa.Table:
    random = np.random.default_rng(rows)
    columns = random.normal(size=(4, rows)).astype(np.float32)
    columns[:3][random.random((3, rows)) < missing] = np.nan
    labels = (np.nan_to_num(columns[0]) + columns[3] > 0).astype(np.float32)
    table = {"a": columns[0], "b": columns[1], "c": columns[2], "y": labels, "w": random.random(rows)}
    return pa.table(table | {"q": np.arange(rows) // 10, "m": columns[3]})


def raw(data: object, folder: Path | None, workers: int = 1, **changes: Any) -> bytes:
    """The model of a run, in memory, or on the disk if a folder is given; the folder is empty afterwards."""
    on_disk = {"storage": "memory"} if folder is None else {"storage": "disk", "cache_folder": str(folder)}
    params = {"max_bin": 64, **changes.pop("params", {}), **on_disk}
    result = trained(data, workers, params=params, **changes)
    assert folder is None or list(folder.iterdir()) == []
    return bytes(result.model.booster().save_raw("json"))


SHAPES: dict[str, Any] = {
    "numbers": (numbers(), {"roles": NUMBERS}),
    "missing": (numbers(missing=0.2), {"roles": NUMBERS}),
    "weights": (numbers(missing=0.1), {"roles": ColumnRoles(("a", "b", "c"), ("y",), weight="w")}),
    "wide bins": (numbers(), {"roles": NUMBERS, "params": {"max_bin": 500}}),
    "margins": (numbers(), {"roles": ColumnRoles(("a", "b"), ("y",), base_margin=("m",))}),
    "outputs": (numbers(), {"roles": ColumnRoles(("a", "b"), ("y", "m"))}),
    "ranking": (
        numbers(),
        {"roles": ColumnRoles(("a", "b"), ("y",), group="q"), "params": {"objective": "rank:ndcg"}},
    ),
    "classes": (numbers(), {"roles": NUMBERS, "params": {"objective": "multi:softprob", "num_class": 2}}),
    "subsample": (numbers(), {"roles": NUMBERS, "params": {"subsample": 0.5, "colsample_bynode": 0.7}}),
    "own objective's gradients": (numbers(), {"roles": NUMBERS, "params": {"objective": "reg:gamma"}}),
    "forest": (numbers(), {"roles": NUMBERS, "params": {"num_parallel_tree": 2}}),
    "categories": (table(), {"roles": ROLES}),
    "eval sets": (
        numbers(),
        {
            "roles": NUMBERS,
            "evals": {"one": numbers(700, 0.1), "few": numbers(2)},
            "params": {"objective": "binary:logistic", "eval_metric": ["auc", "logloss"], "early_stopping_rounds": 3},
        },
    ),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_model_is_the_same_bytes_as_in_memory(name: str, workers: int, tmp_path: Path, small_pages: None) -> None:
    data, changes = SHAPES[name]
    if name == "own objective's gradients":
        data = data.set_column(3, "y", pa.array(np.asarray(data["y"]) + 1.0))
    expected = raw(data, None, workers, **{**changes})
    assert raw(data, tmp_path, workers, **{**changes}) == expected


def test_metrics_are_the_same_numbers(tmp_path: Path, small_pages: None) -> None:
    data, changes = SHAPES["eval sets"]
    found = [
        trained(data, 2, **{**changes, "params": {**changes["params"], **where}}).metrics
        for where in ({"storage": "memory"}, {"storage": "disk", "cache_folder": str(tmp_path)})
    ]
    assert found[0] == found[1]
    assert set(found[0]) == {"one-auc", "one-logloss", "few-auc", "few-logloss"}


def test_the_estimator_takes_the_storage(tmp_path: Path) -> None:
    columns = {"input_cols": ["a", "b"], "label_col": "y"}
    boosters = [
        XGBEstimator(4, storage=kind, cache_folder=str(tmp_path)).fit(numbers(), **columns)
        for kind in ("auto", "memory", "disk")
    ]
    assert len({bytes(booster.save_raw("json")) for booster in boosters}) == 1


# So many that boosting takes more memory than the profile does.
MANY = numbers(1_000_000)


def plan(memory: int, gpus: float = 0.0, memory_check: Any = "refuse", **params: Any) -> Any:
    params = {"n_estimators": 1, **params}
    job = Job(trainer="xgboost", data=MANY, columns=NUMBERS, params=params, memory_check=memory_check)
    return plan_run(job, default_registry(), ClusterResources((Node("n", "127.0.0.1", 1.0, gpus, memory),)))


def test_what_does_not_fit_into_memory_goes_to_the_disk_and_the_plan_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "_PAGE_BYTES", (2**16,))
    needed = plan(0).memory.peak
    roomy, tight = plan(needed), plan(needed - 2**16)
    assert (roomy.config.storage.on_disk, tight.config.storage.on_disk) == (False, True)
    assert [reason for reason in tight.layout.reasons if "Out of core" in reason]
    assert not [reason for reason in roomy.layout.reasons if "Out of core" in reason]
    assert not plan(needed - 2**16, memory_check="off", storage="memory").config.storage.on_disk
    assert plan(0, storage="disk").config.storage.on_disk
    assert not plan(needed - 2**16, memory_check="off", grow_policy="lossguide").config.storage.on_disk


def test_pages_are_as_large_as_the_memory_lets_them_be() -> None:
    config = plan(0, storage="disk").config

    def page_of(available: int) -> int:
        asked = storage.choose_storage(config, available, lambda tried: 6 * tried.storage.page_bytes, on_gpu=False)
        return asked[0].storage.page_bytes

    assert [page_of(megabytes * 2**20) for megabytes in (0, 1000, 800, 500, 100, 10)] == [
        2**20 * page for page in (128, 128, 64, 64, 8, 8)
    ]


def test_on_a_gpu_the_plan_and_the_workers_choose_memory_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAGE_BYTES", (2**16,))
    tight = plan(0).memory.peak - 2**16
    assert plan(tight).memory["disk cache"] > 0
    with pytest.raises(InfeasibleRequestError, match=r"in the phase .fit."):
        plan(tight, gpus=1.0)
    found = plan(tight, gpus=1.0, memory_check="warn")
    assert not found.config.storage.on_disk
    assert (found.memory["disk cache"], found.memory["matrix"] > 0) == (0, True)
    assert [warning for warning in found.warnings if "memory" in warning]
    assert not [reason for reason in found.layout.reasons if "Out of core" in reason]


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"storage": "tape"}, "found 'tape'"),
        ({"cache_folder": 7}, "found 7"),
        ({"cache_budget": 0}, "found 0"),
        ({"storage": "disk", "grow_policy": "lossguide"}, "lossguide"),
        ({"storage": "disk", "booster": "dart"}, "dart"),
    ],
)
def test_what_cannot_be_is_refused(params: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what):
        plan(0, **params)


def test_gpus_are_not_used_with_the_matrix_on_the_disk() -> None:
    job = Job(trainer="xgboost", data=numbers(), columns=NUMBERS, params={"storage": "disk"}, use_gpu=True)
    with pytest.raises(InvalidArgumentError, match="storage='disk'"):
        plan_run(job, default_registry(), ClusterResources((Node("n", "127.0.0.1", 1.0, gpus=1.0),)))


def test_a_budget_that_is_too_small_is_an_error_that_says_so(tmp_path: Path, small_pages: None) -> None:
    params = {"storage": "disk", "cache_folder": str(tmp_path), "cache_budget": 2**15}
    with pytest.raises(CacheError, match=r"its budget is 0\.0 MiB.*cache_budget"):
        trained(numbers(), roles=NUMBERS, params=params)
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_turns_out_wider_than_the_budget_allows_is_an_error(tmp_path: Path, small_pages: None) -> None:
    # Missing values widen the bins by row to four bytes, which shows when the rows are read.
    rows = 20_000
    params = {"storage": "disk", "cache_folder": str(tmp_path), "max_bin": 16, "cache_budget": 17 * rows}
    raw(numbers(rows), tmp_path, roles=NUMBERS, params=params)
    with pytest.raises(CacheError, match="budget"):
        trained(numbers(rows, missing=0.1), roles=NUMBERS, params=params)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(CacheError, match="making a disk cache"):
        trained(numbers(), roles=NUMBERS, params={"storage": "disk", "cache_folder": os.fspath(taken)})


class _Remover:
    """An XGBoost callback that removes the caches after the first round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: list[int] = []

    def before_training(self, booster: Any) -> Any:
        return booster

    def after_training(self, booster: Any) -> Any:
        return booster

    def before_iteration(self, booster: Any, number: int, history: Any) -> bool:
        return False

    def after_iteration(self, booster: Any, number: int, history: Any) -> bool:
        for cache in self.folder.iterdir():
            for file in cache.iterdir():
                self.sizes.append(file.stat().st_size)
                file.unlink()
            cache.rmdir()
        return False


def test_a_cache_that_is_removed_while_it_is_used_is_an_error_that_says_so(tmp_path: Path, small_pages: None) -> None:
    remover = _Remover(tmp_path)
    params = {"storage": "disk", "cache_folder": str(tmp_path), "callbacks": [remover]}
    with pytest.raises(CacheError, match="removed while it was used"):
        trained(numbers(), roles=NUMBERS, params=params)
    assert max(remover.sizes) > 0
    assert list(tmp_path.iterdir()) == []

"""Nothing that a rank does makes the others wait for ever; who failed, where and why is told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from shardfit.errors import InvalidArgumentError, ShardfitError, WorkerError
from shardfit.stores.local import LocalStore
from shardfit_pytorch import group_keeper
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_pytorch import loops


def fails(stage: Path, what: str, ranks: int = 2) -> ShardfitError:
    with pytest.raises(ShardfitError) as raised:
        loops.run(loops.misbehave, ranks, stage, None, {"what": what, "rank": ranks - 1})
    assert list(LocalStore(stage).list("model/")) == []
    return raised.value


@pytest.mark.parametrize("what", ["raises", "raises before the group is made"])
def test_an_error_of_one_rank_says_which_where_and_has_its_traceback(
    tmp_path: Path, four_processes: ProcessEngine, what: str
) -> None:
    error = fails(tmp_path, what)
    assert isinstance(error, WorkerError)
    for words in ("worker 1 on node node-1", "in misbehave", "ValueError: rank 1" if what == "raises" else "KeyError"):
        assert words in str(error)


@pytest.mark.parametrize("what", ["returns", "leaves before the group is made"])
def test_a_rank_that_ends_early_is_named_to_those_that_wait_for_it(
    tmp_path: Path, four_processes: ProcessEngine, what: str
) -> None:
    error = fails(tmp_path, what)
    assert isinstance(error, InvalidArgumentError)
    assert "rank 1 ended its loop after 0 batches, while rank 0, after 0, was" in str(error)


def test_a_rank_that_exits_is_told_apart_from_one_that_dies(tmp_path: Path, four_processes: ProcessEngine) -> None:
    assert "sys.exit(3)" in str(fails(tmp_path, "exits"))


def test_ranks_that_take_different_numbers_of_steps_are_an_error(tmp_path: Path, four_processes: ProcessEngine) -> None:
    with pytest.raises(WorkerError, match="rank 0 took 5 batches and rank 1 took 3"):
        loops.run(loops.breaks_early, 2, tmp_path, {"train": loops.sharded(100)})
    assert list(LocalStore(tmp_path).list("model/")) == []


def test_files_that_others_left_open_are_not_said_of_a_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(group_keeper, "_of_the_last_run", [object()])
    (tmp_path / "x").touch()
    cycle: list[Any] = [(tmp_path / "x").open()]
    cycle.append(cycle)
    del cycle
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        group_keeper.GroupKeeper()
    assert said == []

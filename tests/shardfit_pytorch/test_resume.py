"""A rank that is killed costs no row and changes no digit; a checkpoint goes on at any number of ranks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardfit import DataConnector
from shardfit.errors import InvalidArgumentError
from shardfit.events import CheckpointStored, Event, PlanMade, WorkerLost
from shardfit.stores.local import LocalStore
from shardfit_pytorch import PyTorchDistributorResult
from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_pytorch import loops

ROWS = 1003
STEPS = 16  # of 63 rows, which no number of ranks divides evenly; the last one has the 58 that are left


def trained(stage: Path, ranks: int, given: Mapping[str, Any], **options: Any) -> PyTorchDistributorResult:
    datasets = {"train": loops.sharded(ROWS), "all": DataConnector.from_arrow(loops.houses(ROWS))}
    hyper_params = {"epochs": 2, "global_batch_size": 63, **given}
    return loops.run(loops.exact, ranks, stage, datasets, hyper_params, seed=5, **options)


def weights(result: PyTorchDistributorResult, file: str = "model.pt") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Path(result.get_model_dir()) / file, weights_only=True)
    return state


def assert_close(one: PyTorchDistributorResult, other: PyTorchDistributorResult, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=tolerance)
    assert one.get_metrics() == pytest.approx(other.get_metrics(), rel=1e-5)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> PyTorchDistributorResult:
    return trained(tmp_path_factory.mktemp("undisturbed"), 1, {})


@pytest.mark.parametrize("ranks", [2, 4])
def test_gradients_of_unequal_ranks_equal_those_of_one_process(
    tmp_path: Path, undisturbed: PyTorchDistributorResult, four_processes: ProcessEngine, ranks: int
) -> None:
    """Those of the first step as they are; and 32 steps of Adam would blow up any difference in later ones."""
    result = trained(tmp_path, ranks, {})
    assert result.result.plan.layout.workers == ranks
    gradients, expected = (weights(each, "gradients.pt") for each in (result, undisturbed))
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-6)
    assert_close(result, undisturbed)


@pytest.mark.parametrize(
    ("ranks", "left", "loader_workers"),
    [(4, 2, 0), (2, 2, 2)],
    ids=["a node is lost with it", "on as many ranks as before, with processes that load"],
)
def test_a_killed_rank_costs_no_row_of_the_epoch_and_changes_nothing(
    tmp_path: Path,
    undisturbed: PyTorchDistributorResult,
    four_processes: ProcessEngine,
    ranks: int,
    left: int,
    loader_workers: int,
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    events: list[Event] = []

    def lose(event: Event) -> None:
        events.append(event)
        if isinstance(event, WorkerLost) and left < ranks:
            del four_processes.nodes[left:]

    given = {
        "checkpoint_every": 5,
        "die_at": STEPS + 8,
        "die_rank": 1,
        "once": str(tmp_path / "once"),
        "seen": str(seen),
        "loader_workers": loader_workers,
    }
    result = trained(tmp_path / "stage", ranks, given, observers=[lose])
    assert result.result.attempts == 2
    assert result.result.plan.layout.workers == left
    (lost,) = [event for event in events if isinstance(event, WorkerLost)]
    assert lost.worker == 1
    # It is noticed before anything else happens: nothing waits for a rank that is not there.
    kinds = [type(event) for event in events if isinstance(event, CheckpointStored | PlanMade | WorkerLost)]
    in_turn = [kind for kind, _ in itertools.groupby(kinds)]
    assert in_turn == [PlanMade, CheckpointStored, WorkerLost, PlanMade, CheckpointStored]
    assert_close(result, undisturbed)
    # Of step 20, or 15 if 20's was still on its way. What was taken of the second epoch until then stays as it is.
    numbers = rows_of_epoch(seen, 1, {16: ranks, 17: ranks, 18: ranks, 19: ranks}, left)
    assert sorted(numbers) == list(range(ROWS))
    coverage = result.coverage["train"]
    assert (coverage.exact, coverage.handed.rows) == (True, ROWS)


def rows_of_epoch(seen: Path, epoch: int, before: Mapping[int, int], after: int) -> list[int]:
    """The rows of the steps that count: with the number of ranks that took each."""
    numbers: list[int] = []
    for step in range(epoch * STEPS, (epoch + 1) * STEPS):
        world = before.get(step, after)
        for rank in range(world):
            numbers += np.load(seen / f"{epoch}-{step}-{world}-{rank}.npy").tolist()
    return numbers


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_another_run_goes_on_from_a_checkpoint_that_holds_no_pickle(
    tmp_path: Path, undisturbed: PyTorchDistributorResult, loader_workers: int
) -> None:
    """Batches that the processes of a data loader have prepared beyond the tenth do not count."""
    first = trained(tmp_path, 1, {"epochs": 1, "checkpoint_every": 10, "loader_workers": loader_workers})
    location = first.get_checkpoint_location()
    assert location is not None
    state = json.loads(Path(location, "state.json").read_text())
    assert (state["step"], state["positions"]["train"]["steps"], state["extra"]) == (10, 10, {"step": 10})
    for path in Path(location).rglob("*"):
        assert path.is_dir() or path.read_bytes()[:1] != b"\x80"
    second = trained(tmp_path, 1, {}, resume_from=first)
    assert_close(second, undisturbed)
    assert second.coverage["train"].exact


def test_a_slow_stage_does_not_hold_up_the_loop_and_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    stored: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, CheckpointStored):
            stored.append(event.step)

    result = trained(tmp_path, 1, {"checkpoint_every": 1, "wait": False}, observers=[watch])
    assert stored == sorted(stored)
    assert stored[-1] == 2 * STEPS
    assert [*LocalStore(tmp_path).list(f"run/{result.run_id}/checkpoint")] == [f"run/{result.run_id}/checkpoint-1-32"]


def test_a_model_of_another_shape_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(tmp_path, 1, {"epochs": 1, "checkpoint_every": 10})
    monkeypatch.setattr(loops, "network", lambda: torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Linear(9, 1)))
    with pytest.raises(InvalidArgumentError, match="built as they were"):
        trained(tmp_path, 1, {}, resume_from=first)


def test_a_finished_model_is_no_checkpoint(tmp_path: Path) -> None:
    first = trained(tmp_path, 1, {"epochs": 1})
    with pytest.raises(InvalidArgumentError, match=r"model\.pt"):
        trained(tmp_path, 1, {}, resume_from=first)

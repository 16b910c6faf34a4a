"""Small gradients go to every rank at once, and come to the same bits on each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.parallel import DistributedDataParallel

from shardfit.collectives.meeting import meeting_point
from shardfit.engine import WorkerContext
from shardfit.errors import WorkerError
from shardfit.scaling import WorkerLayout, WorkerSlot
from shardfit.testing.worker_threads import WorkerThreads
from shardfit_pytorch.direct_lines import DirectLines
from shardfit_pytorch.direct_mean import DirectMean


class Bucket:
    """What DDP hands to a hook, as far as it is used."""

    def __init__(self, gradients: torch.Tensor) -> None:
        self._gradients = gradients

    def buffer(self) -> torch.Tensor:
        return self._gradients


def told(event: Any) -> None:
    pass


@pytest.fixture
def group() -> Iterator[Any]:
    def of(ranks: int) -> WorkerThreads:
        slots = tuple(WorkerSlot(rank, f"thread-{rank}", 1) for rank in range(ranks))
        groups.append(WorkerThreads(WorkerLayout("ray", slots, ("A test.",))))
        return groups[-1]

    groups: list[WorkerThreads] = []
    yield of
    for each in groups:
        each.stop()


def two_means(context: WorkerContext, meeting: Any, gradients: torch.Tensor) -> list[torch.Tensor]:
    with DirectLines(context.rank, meeting) as lines:
        lines.open()
        hook = DirectMean(lines)
        return [hook.mean(None, Bucket(gradients * step)).wait() for step in (1, 2)]  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_has_the_mean_in_the_same_bits(group: Any, ranks: int, dtype: torch.dtype) -> None:
    gradients = torch.randn((ranks, 5000), generator=torch.Generator().manual_seed(0)).to(dtype)
    workers = group(ranks)
    with meeting_point(workers, join_timeout_s=60) as meeting:
        found = workers.run(two_means, [(meeting, mine) for mine in gradients], told)
    for step in (0, 1):
        assert all(torch.equal(found[0][step], other[step]) for other in found)
        expected = gradients.double().mean(0) * (step + 1)
        torch.testing.assert_close(found[0][step].double(), expected, rtol=0, atol=1e-6 if dtype.itemsize == 4 else 0.1)


def mean_until_alone(context: WorkerContext, meeting: Any, steps: int) -> str:
    with DirectLines(context.rank, meeting) as lines:
        lines.open()
        hook = DirectMean(lines)
        for _ in range(steps):
            try:
                hook.mean(None, Bucket(torch.ones(3)))  # type: ignore[arg-type]
            except RuntimeError as error:
                return str(error)
    return "all steps"


def test_a_rank_that_waits_for_one_that_left_is_told_as_gloo_tells_it(group: Any) -> None:
    workers = group(2)
    with meeting_point(workers, join_timeout_s=60) as meeting:
        found = workers.run(mean_until_alone, [(meeting, 1), (meeting, 2)], told)
    assert found[0] == "all steps"
    assert found[1].startswith("Connection closed by peer")


def swapped(context: WorkerContext, meeting: Any, payload: bytes) -> Any:
    with DirectLines(context.rank, meeting) as lines:
        lines.open()
        try:
            return [bytes(part) for part in lines.swap(payload)]
        except WorkerError as error:
            return str(error)


@pytest.mark.parametrize("size", [0, 1, 2**26])
def test_any_number_of_bytes_goes_both_ways(group: Any, size: int) -> None:
    workers = group(3)
    payloads = [bytes([65 + rank]) * size for rank in range(3)]
    with meeting_point(workers, join_timeout_s=60) as meeting:
        assert workers.run(swapped, [(meeting, mine) for mine in payloads], told) == [payloads] * 3


def test_ranks_that_send_different_things_are_told(group: Any) -> None:
    workers = group(2)
    with meeting_point(workers, join_timeout_s=60) as meeting:
        found = workers.run(swapped, [(meeting, b"four"), (meeting, b"seven77")], told)
    assert "swapping 4 bytes on rank 0 (swap 1): rank 1 sends 7 bytes" in found[0]
    assert "swapping 7 bytes on rank 1 (swap 1): rank 0 sends 4 bytes" in found[1]


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A group of this process alone that says it has two ranks: nothing is sent before the backward pass."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    yield
    dist.destroy_process_group()


class NoLines(DirectLines):
    """Lines that need no other rank."""

    def __init__(self) -> None:
        pass

    def open(self) -> None:
        pass


def stepped(model: nn.Module, **options: Any) -> DistributedDataParallel:
    wrapped = DistributedDataParallel(model, **options)
    DirectMean(NoLines()).use_for(wrapped)
    return wrapped


def test_it_is_the_hook_of_a_small_model_from_the_first_step(two_ranks: None) -> None:
    model = stepped(nn.Linear(3, 1))
    assert not model._comm_hooks
    model(torch.ones(2, 3))
    assert [hook.__name__ for hook, _ in model._comm_hooks] == ["mean"]
    model(torch.ones(2, 3))
    assert len(model._comm_hooks) == 1


def test_another_hook_comes_first(two_ranks: None) -> None:
    model = stepped(nn.Linear(3, 1))
    model.register_comm_hook(None, noop_hook)
    model(torch.ones(1, 3)).sum().backward()
    assert model._comm_hooks == [(noop_hook, None)]
    assert model.module.weight.grad.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("model", [nn.Linear(600, 600), nn.EmbeddingBag(9, 2, sparse=True)])
def test_large_models_and_sparse_ones_are_left_to_gloo(two_ranks: None, model: nn.Module) -> None:
    wrapped = stepped(model)
    wrapped(torch.ones(2, 600) if isinstance(model, nn.Linear) else torch.ones(2, 3, dtype=torch.int64))
    assert not wrapped._comm_hooks


@pytest.mark.parametrize("steps", [0, 1])
def test_a_model_that_is_saved_whole_leaves_the_group_behind(two_ranks: None, steps: int) -> None:
    model = stepped(nn.Linear(3, 1))
    for _ in range(steps):
        model(torch.ones(2, 3))
    saved = pickle.loads(pickle.dumps(model))
    assert saved(torch.ones(2, 3)).shape == (2, 1)

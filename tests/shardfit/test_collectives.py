"""Collectives: the same bits on every worker, in every run, and clear errors where workers disagree."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shardfit.collectives.contract import Collectives
from shardfit.errors import InvalidArgumentError, WorkerError
from tests.shardfit.meeting_workers import DTYPES, Task, outcomes, part, together


@settings(max_examples=30)
@given(
    st.integers(1, 4),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    st.sampled_from(DTYPES),
    st.sampled_from(["sum", "max", "min"]),
)
def test_allreduce_combines_in_the_order_of_the_ranks_and_gives_every_worker_the_same_bits(
    workers: int, shape: tuple[int, ...], dtype: str, op: Any
) -> None:
    found = together(workers, lambda peers: peers.allreduce(part(peers.rank, shape, dtype), op))
    expected = part(0, shape, dtype)
    for rank in range(1, workers):
        expected = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op](expected, part(rank, shape, dtype))
    for each in found:
        assert each.shape == shape
        assert each.dtype == np.dtype(dtype).newbyteorder("=")
        assert each.tobytes() == np.asarray(expected, dtype=each.dtype).tobytes()


def test_a_sum_of_floats_depends_on_the_order_that_is_promised() -> None:
    """So the test above can fail: in another order the sum of these has other bits."""
    values = [part(rank, (50,), "<f8") for rank in range(3)]
    assert (values[0] + values[1] + values[2]).tobytes() != (values[2] + values[1] + values[0]).tobytes()


@settings(max_examples=20)
@given(st.integers(1, 4), st.data())
def test_allgather_gives_every_array_by_rank_whatever_its_shape_and_type(workers: int, data: st.DataObject) -> None:
    shapes = [data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)) for _ in range(workers)]
    kinds = [data.draw(st.sampled_from([*DTYPES, "|b1"])) for _ in range(workers)]
    arrays = [part(rank, shapes[rank], kinds[rank]) for rank in range(workers)]
    for gathered in together(workers, lambda peers: peers.allgather(arrays[peers.rank])):
        assert [each.dtype for each in gathered] == [np.dtype(kind).newbyteorder("=") for kind in kinds]
        for each, sent in zip(gathered, arrays, strict=True):
            np.testing.assert_array_equal(each, sent)


@pytest.mark.parametrize("root", [0, 1, 2])
def test_broadcast_gives_all_the_array_of_the_root(root: int) -> None:
    def task(peers: Collectives) -> Any:
        return peers.broadcast(part(root, (2, 3), "<f4") if peers.rank == root else None, root)

    for found in together(3, task):
        np.testing.assert_array_equal(found, part(root, (2, 3), "<f4"), strict=True)


def test_what_comes_back_belongs_to_the_caller() -> None:
    mine = [np.zeros(3) for _ in range(2)]

    def task(peers: Collectives) -> None:
        own = mine[peers.rank]
        for found in (*peers.allgather(own), peers.broadcast(own), peers.allreduce(own)):
            found += 1

    together(2, task)
    assert [each.tolist() for each in mine] == [[0.0] * 3, [0.0] * 3]


def test_nobody_passes_a_barrier_before_all_are_there() -> None:
    arrived: list[int] = []

    def task(peers: Collectives) -> int:
        arrived.append(peers.rank)
        peers.barrier()
        return len(arrived)

    assert together(4, task) == [4] * 4


@given(
    st.lists(st.floats(-1e300, 1e300), max_size=30), st.lists(st.integers(0, 30), min_size=0, max_size=3), st.booleans()
)
@settings(max_examples=30)
def test_an_exact_sum_is_the_true_sum_however_the_rows_are_divided(
    rows: list[float], cuts: list[int], twice: bool
) -> None:
    values = np.array([[row, -row] for row in rows] if twice else rows, dtype=np.float64).reshape(
        (len(rows), 2) if twice else (len(rows),)
    )
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    sum_of_all = float(sum(map(Fraction, rows)))
    expected = np.array([sum_of_all, -sum_of_all] if twice else sum_of_all)
    workers = len(ends) - 1
    for found in together(workers, lambda peers: peers.exact_sum(values[ends[peers.rank] : ends[peers.rank + 1]])):
        assert found.shape == expected.shape
        assert found.tolist() == expected.tolist()


def test_arrays_that_no_buffer_holds_pass_in_both_directions_at_once() -> None:
    def task(peers: Collectives) -> bool:
        total = peers.allreduce(np.full(13_000_001, peers.rank + 1, dtype=np.float64))
        return bool((total == 3.0).all())

    assert together(2, task) == [True, True]


def test_many_calls_in_a_row_do_not_mix_even_if_one_worker_is_ahead() -> None:
    def task(peers: Collectives) -> list[int]:
        found = []
        for number in range(50):
            found.append(int(peers.broadcast(number, root=number % 3)) + int(peers.allreduce(number)))
        return found

    assert together(3, task) == [[number + 3 * number for number in range(50)]] * 3


DISAGREEMENTS: dict[str, tuple[Callable[[Collectives], Any], Callable[[Collectives], Any], type[Exception], list[str]]]
DISAGREEMENTS = {
    "shapes": (
        lambda peers: peers.allreduce(np.zeros((2, 3))),
        lambda peers: peers.allreduce(np.zeros(4)),
        InvalidArgumentError,
        ["(2, 3)", "(4,)"],
    ),
    "types": (
        lambda peers: peers.allreduce(np.zeros(2)),
        lambda peers: peers.allreduce(np.zeros(2, dtype=np.float32)),
        InvalidArgumentError,
        ["float64", "float32"],
    ),
    "operations": (
        lambda peers: peers.allreduce(1),
        lambda peers: peers.allreduce(1, "max"),
        InvalidArgumentError,
        ["allreduce(sum)", "allreduce(max)"],
    ),
    "roots": (
        lambda peers: peers.broadcast(1, 0),
        lambda peers: peers.broadcast(1, 1),
        InvalidArgumentError,
        ["root 0", "root 1"],
    ),
    "calls": (
        lambda peers: peers.barrier(),
        lambda peers: peers.allgather(1),
        WorkerError,
        ["barrier()", "allgather()"],
    ),
}


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_workers_that_disagree_are_all_told_what_the_other_does(what: str) -> None:
    first, second, kind, said = DISAGREEMENTS[what]
    found = outcomes(2, lambda peers: first(peers) if peers.rank == 0 else second(peers))
    for rank, error in enumerate(found):
        assert isinstance(error, kind)
        assert [text for text in [*said, f"worker {rank}", f"worker {1 - rank}"] if text not in str(error)] == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda peers: peers.allreduce(np.array(["a"])), "<U1"),
        (lambda peers: peers.allreduce(np.array([True])), "astype"),
        (lambda peers: peers.allreduce(np.array([object()])), "object"),
        (lambda peers: peers.allreduce(1, "mean"), "'mean'"),
        (lambda peers: peers.broadcast(1, root=1), "root=1 with 1 workers"),
        (lambda peers: peers.broadcast(None), "object"),
        (lambda peers: peers.exact_sum(np.float64(1)), "[rows, ...]"),
    ],
)
def test_what_can_not_be_sent_is_refused_before_anything_is(call: Task[Any], said: str) -> None:
    (error,) = outcomes(1, call)
    assert isinstance(error, InvalidArgumentError)
    assert said in str(error)


def test_one_worker_meets_nobody_and_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_server", refuse)
    assert together(1, lambda peers: (peers.rank, peers.world_size, peers.allreduce([1, 2]).tolist())) == [
        (0, 1, [1, 2])
    ]


def test_the_same_call_gives_the_same_bits_every_time() -> None:
    def task(peers: Collectives) -> bytes:
        return peers.allreduce(part(peers.rank, (999,), "<f4")).tobytes()

    with ThreadPoolExecutor(1) as pool:
        runs: list[Future[list[bytes]]] = [pool.submit(together, 3, task) for _ in range(5)]
        assert len({bits for run in runs for bits in run.result()}) == 1

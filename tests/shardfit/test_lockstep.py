from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shardfit.errors import InvalidValueError
from shardfit.metrics import Reducer
from shardfit.testing.lockstep import LockstepError, run_in_lockstep


def test_arrays_are_added_up_on_every_worker() -> None:
    totals = run_in_lockstep(3, lambda reducer: reducer.allreduce(np.array([reducer.rank, 2**62], dtype=np.int64) // 4))
    assert [total.tolist() for total in totals] == [[0, 3 * 2**60]] * 3


def test_a_reducer_keeps_the_shape_of_what_it_sums() -> None:
    table = np.arange(6).reshape(2, 3)
    totals = run_in_lockstep(2, lambda reducer: reducer.sum(table.T))
    assert [total.tolist() for total in totals] == [(2 * table.T).tolist()] * 2


def test_allreduce_itself_takes_one_dimension_only() -> None:
    with pytest.raises(LockstepError, match="one dimension"):
        run_in_lockstep(2, lambda reducer: reducer.allreduce(np.zeros((1, 1), dtype=np.int64)))


def called_once_too_often(reducer: Reducer) -> int:
    for _ in range(1 + reducer.rank):
        reducer.allreduce(np.ones(1, dtype=np.int64))
    return reducer.rank


def different_shapes(reducer: Reducer) -> int:
    return len(reducer.allreduce(np.ones(1 + reducer.rank, dtype=np.int64)))


@pytest.mark.parametrize("task", [called_once_too_often, different_shapes])
def test_workers_that_do_not_reduce_in_lockstep_are_found(task: Callable[[Reducer], int]) -> None:
    with pytest.raises(LockstepError):
        run_in_lockstep(3, task)


def test_an_error_on_one_worker_ends_the_others() -> None:
    def task(reducer: Reducer) -> Any:
        if reducer.rank == 1:
            raise InvalidValueError("evaluating", "a bad label")
        return reducer.allreduce(np.ones(1, dtype=np.int64))

    with pytest.raises(InvalidValueError, match="a bad label"):
        run_in_lockstep(3, task)

"""The dataset in a `DataLoader`: worker processes, epochs, positions that do not count what is prepared ahead."""

from __future__ import annotations

import multiprocessing.connection
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from shardfit import DataConnector
from shardfit.coverage import RowDigest
from shardfit.errors import ChangedDataError, InvalidArgumentError
from shardfit_pytorch.data import Batch, Position
from shardfit_pytorch.data.torch_dataset import UncountedBatchesWarning
from tests.shardfit_pytorch.data.tables import Recorder, UnevenSource, flat, numbered, rank_of, rows_of

SIZES = [50, 3, 0, 120, 27]
ROWS = sum(SIZES)


def dataset_of(**options: Any) -> Any:
    return rank_of(numbered(SIZES), **{"batch_size": 8, **options})


# Each that is spawned imports PyTorch for itself.
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 2)])
def test_workers_started_in_any_way_give_the_batches_in_order(method: str, workers: int) -> None:
    options = {"shuffle": True, "seed": 4}
    expected = rows_of(dataset_of(**options))
    loader = DataLoader(dataset_of(**options), num_workers=workers, multiprocessing_context=method)
    assert rows_of(loader) == expected
    assert sorted(flat(expected)) == list(range(ROWS))


def test_workers_can_be_forked_while_threads_decode_the_same_files(tmp_path: Path) -> None:
    rows = 20_000
    pq.write_table(pa.table({"row": np.arange(rows), "x": np.zeros(rows)}), tmp_path / "t.parquet", row_group_size=900)
    connector = DataConnector.from_parquet(tmp_path / "t.parquet")
    # Arrow's threads exist, a thread of ours decodes ahead, a file is open: what a fork could leave locked.
    ahead = iter(connector.to_torch_dataset(batch_size=100))
    first = next(ahead)["row"].tolist()
    shared = connector.to_torch_dataset(batch_size=100, shuffle=True)
    loader = DataLoader(shared, num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        assert sorted(flat(rows_of(loader))) == list(range(rows))
    assert first + flat(rows_of(ahead)) == list(range(rows))


def test_a_loader_knows_how_many_steps_there_are() -> None:
    loader = DataLoader(dataset_of(), num_workers=1)
    assert len(loader) == len(list(loader)) == 25


# Each example starts processes.
@settings(max_examples=6)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 2),
    st.booleans(),
    st.integers(0, 6),
)
def test_workers_change_nothing(
    sizes: list[int], world_size: int, batch_size: int, workers: int, shuffle: bool, interruption: int
) -> None:
    options = {"batch_size": batch_size, "shuffle": shuffle}
    expected = rows_of(rank_of(numbered(sizes), 0, world_size, **options))
    tracker = Recorder()
    dataset = rank_of(numbered(sizes), 0, world_size, tracker=tracker, **options)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    before = rows_of(batch for _, batch in zip(range(interruption), loader, strict=False))
    assert len(tracker.steps) == len(before)
    after = rank_of(numbered(sizes), 0, world_size, **options)
    after.start_at(dataset.state())
    if len(before) < len(expected):
        before += rows_of(DataLoader(after, batch_size=None, num_workers=workers))
    assert before == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_position_counts_what_the_loop_took_and_not_what_is_ready(workers: int) -> None:
    tracker = Recorder()
    dataset = dataset_of(tracker=tracker, shuffle=True)
    batches = iter(DataLoader(dataset, num_workers=workers, **({"prefetch_factor": 4} if workers else {})))
    for taken in range(1, 6):
        batch = next(batches)
        rows = batch["row"]
        assert dataset.state().steps == taken
        assert dataset.step_rows() == (8, 8)
        assert tracker.steps[-1].position == dataset.state()
        assert tracker.steps[-1].digest == RowDigest.of_rows(rows.flatten().numpy())
    assert len(tracker.steps) == 5
    del batches


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_each_iteration_is_the_next_epoch(options: dict[str, Any]) -> None:
    expected = []
    for epoch in range(3):
        dataset = dataset_of(shuffle=True)
        dataset.set_epoch(epoch)
        expected.append(rows_of(dataset))
    assert expected[0] != expected[1] != expected[2]
    dataset = dataset_of(shuffle=True)
    loader = DataLoader(dataset, **options)
    assert [rows_of(loader), rows_of(loader)] == expected[:2]
    assert dataset.epoch == 2
    dataset.set_epoch(1)
    assert [rows_of(loader), rows_of(loader)] == expected[1:]
    assert dataset.state() == Position(3, 0, ROWS, "shuffled 0 0")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_given_up_is_followed_by_the_next(workers: int) -> None:
    second = dataset_of(shuffle=True)
    second.set_epoch(1)
    dataset = dataset_of(shuffle=True)
    loader = DataLoader(dataset, num_workers=workers)
    for batch in loader:
        assert batch["row"].shape == (1, 8)
        break
    assert rows_of(loader) == rows_of(second)


def test_setting_the_epoch_that_is_to_be_continued_keeps_the_place_in_it() -> None:
    dataset = dataset_of()
    dataset.start_at(Position.from_json(dataset_at(2, 3).to_json()))
    dataset.set_epoch(2)
    assert flat(rows_of(dataset)) == list(range(24, ROWS))
    dataset.set_epoch(2)
    assert flat(rows_of(dataset)) == list(range(ROWS))


def dataset_at(epoch: int, steps: int) -> Position:
    dataset = dataset_of()
    dataset.set_epoch(epoch)
    for _ in zip(range(steps), dataset, strict=False):
        pass
    position = dataset.state()
    assert (position.epoch, position.steps) == (epoch, steps)
    return position


def test_the_loop_of_a_seed_style_program_reads_columns_as_it_expects() -> None:
    for batch_dict in DataLoader(dataset_of(batch_size=64)):
        X = torch.cat([batch_dict[column].T for column in ("half", "half")], dim=1)
        assert X.shape == (batch_dict["row"].shape[1], 2)
        assert torch.equal(X[:, 0] * 2, batch_dict["row"][0].float())
        assert isinstance(batch_dict, dict)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_puts_batches_together_counts_each(workers: int) -> None:
    dataset = rank_of(numbered([32]), batch_size=8)
    batches = list(DataLoader(dataset, batch_size=2, num_workers=workers))
    assert [batch["row"].shape for batch in batches] == [(2, 8), (2, 8)]
    assert dataset.state().epoch == 1


def test_workers_that_stay_cannot_be_sent_into_the_middle_of_an_epoch() -> None:
    position = dataset_at(2, 3)
    dataset = dataset_of()
    loader = DataLoader(dataset, num_workers=1, persistent_workers=True)
    rows_of(loader)
    dataset.start_at(position)
    with pytest.raises(InvalidArgumentError, match=r"Call start_at\(\) before"):
        rows_of(loader)


def test_an_error_in_a_worker_comes_to_the_loop() -> None:
    class Miscounting(UnevenSource):
        def read(self, *arguments: Any) -> Any:
            yield from list(super().read(*arguments))[:-1]

    source = Miscounting(numbered(SIZES).table, SIZES)
    for options in ({}, {"num_workers": 1, "multiprocessing_context": "fork"}):
        with pytest.raises(ChangedDataError, match="rows where 50 were planned"):
            rows_of(DataLoader(rank_of(source), **options))


def features_only(batches: Any) -> Any:
    return torch.stack([batch["half"] for batch in batches])


@pytest.mark.filterwarnings("error")
def test_batches_that_a_loader_makes_something_else_of_are_not_uncounted_in_silence() -> None:
    dataset = dataset_of()
    assert len(list(DataLoader(dataset, num_workers=2, collate_fn=features_only))) == 25
    with pytest.warns(UncountedBatchesWarning, match="collate_fn"):
        assert dataset.state().steps == 0
    dataset.state()  # Once is enough.
    counted = dataset_of()
    assert len(list(DataLoader(counted, collate_fn=features_only))) == 25
    assert counted.state().epoch == 1
    rows_of(DataLoader(counted, num_workers=2))
    assert counted.state().epoch == 2


ORPHANS = """
import multiprocessing, sys, time
from torch.utils.data import DataLoader
from tests.shardfit_pytorch.data.tables import numbered, rank_of

if __name__ == "__main__":
    dataset = rank_of(numbered([500]), batch_size=5)
    loader = iter(DataLoader(dataset, num_workers=2, multiprocessing_context=sys.argv[1]))
    next(loader), next(loader)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_the_process_of_their_loop(method: str, tmp_path: Path) -> None:
    """Those of a fork server would stay for ever: the process that is their parent goes on."""
    program = tmp_path / "orphans.py"
    program.write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, program, method], stdout=subprocess.PIPE, text=True, env=environment
    ) as loop:
        assert loop.stdout is not None
        workers = [os.pidfd_open(int(pid)) for pid in loop.stdout.readline().split()]
        loop.kill()
    assert len(workers) == 2
    for worker in workers:
        assert multiprocessing.connection.wait([worker], 60)
        os.close(worker)


def test_a_ray_dataset_is_refused_in_a_worker() -> None:
    class FromRay(UnevenSource):
        def fragments(self) -> Any:
            return [replace(fragment, uri="ray:dataset") for fragment in super().fragments()]

    source = FromRay(numbered(SIZES).table, SIZES)
    with pytest.raises(InvalidArgumentError, match="Use num_workers=0"):
        rows_of(DataLoader(rank_of(source), num_workers=1, multiprocessing_context="fork"))
    assert flat(rows_of(rank_of(source))) == list(range(ROWS))


def test_a_loop_that_is_left_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = iter(dataset_of())
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_a_dataset_can_be_pickled_without_its_tracker() -> None:
    tracker = Recorder()
    dataset = dataset_of(tracker=tracker)
    copied = pickle.loads(pickle.dumps(dataset))
    assert flat(rows_of(copied)) == list(range(ROWS))
    assert tracker.steps == []
    assert tracker.datasets == [dataset]


@pytest.mark.parametrize(
    ("position", "found"),
    [
        (Position(0, 0, 7, "table"), "a table of 7 rows"),
        ('{"epoch": 1}', "found"),
        ({"epoch": 1, "deals": 3}, "found"),
    ],
)
def test_a_position_of_another_table_is_refused(position: Any, found: str) -> None:
    with pytest.raises(InvalidArgumentError, match=found):
        dataset_of().start_at(position)


def test_a_position_in_another_order_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'table', and now they are in the order 'shuffled 0 5'"):
        dataset_of(shuffle=True, seed=5).start_at(dataset_at(0, 2))


@pytest.mark.parametrize("epoch", [-1, 1.5, None])
def test_an_epoch_that_is_none_is_refused(epoch: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="Epochs count from 0"):
        dataset_of().set_epoch(epoch)


def test_the_rows_of_a_step_before_the_first_are_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="no batch was taken yet"):
        dataset_of().step_rows()


def test_batches_are_of_a_class_of_their_own() -> None:
    assert type(next(iter(DataLoader(dataset_of())))) is Batch

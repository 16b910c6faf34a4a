"""The memory plan: its parts add up, it is compared with what workers have, and what was measured stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.casts import decoded_width
from shardfit.columns import ColumnRoles
from shardfit.data_shape import DataShape
from shardfit.errors import InfeasibleRequestError
from shardfit.job import Job
from shardfit.memory_fit import check_memory, workers_that_fit
from shardfit.memory_meter import peak_bytes, reset_peak
from shardfit.memory_parts import core_parts, sample_bytes
from shardfit.memory_plan import PHASES, MemoryPart, MemoryPlan
from shardfit.registry import default_registry
from shardfit.run_plan import RunPlan, plan_run
from shardfit.run_record import list_records
from shardfit.scaling import ClusterResources, Node
from shardfit.testing.worker_threads import train_on_threads

PLAN = MemoryPlan(
    (
        MemoryPart("process", 100, "always there"),
        MemoryPart("batches", 50, "while reading", ("profile", "ingest")),
        MemoryPart("matrix", 70, "from then on", ("ingest", "fit")),
        MemoryPart("cache", 1000, "on the disk", ()),
    ),
    available=200,
)


def test_a_plan_adds_up_phase_by_phase() -> None:
    assert dict(PLAN.phases) == {"profile": 150, "ingest": 220, "fit": 170}
    assert (PLAN.peak, PLAN.disk, PLAN["matrix"], PLAN["nothing"]) == (220, 1000, 70, 0)
    assert PLAN.to_dict()["parts"][1] == {
        "part": "batches",
        "bytes": 50,
        "phases": ["profile", "ingest"],
        "why": "while reading",
    }


def needed(fixed: int, shared: int) -> Callable[[int], int]:
    return lambda workers: fixed + -(-shared // workers)


def test_what_does_not_fit_is_refused_with_the_number_of_workers_that_would_do() -> None:
    with pytest.raises(InfeasibleRequestError, match=r"in the phase 'ingest' \(process .*Use 3 workers") as caught:
        check_memory("refuse", PLAN, needed(100, 300), 2)
    assert "memory_check='warn'" in caught.value.advice
    (warning,) = check_memory("warn", PLAN, needed(100, 300), 2)
    assert "Use 3 workers" in warning
    assert check_memory("off", PLAN, needed(100, 300), 2) == ()
    assert check_memory("refuse", MemoryPlan(PLAN.parts, 220), needed(100, 300), 2) == ()
    # Nothing is known of what the worker has.
    assert check_memory("refuse", MemoryPlan(PLAN.parts), needed(100, 300), 2) == ()


def test_where_no_number_of_workers_would_do_it_says_so() -> None:
    assert workers_that_fit(needed(300, 0), 200, 1) == 0
    with pytest.raises(InfeasibleRequestError, match="Use workers with more memory"):
        check_memory("refuse", PLAN, needed(300, 0), 1)


def test_the_sample_is_limited_in_rows_and_bytes_and_divided_among_workers() -> None:
    assert sample_bytes(1_000_000, 10) == 4 * 10 * 200_000
    assert sample_bytes(1_000_000, 10_000) == 4 * 10_000 * 8192
    shapes = [DataShape(rows, 100_000, 10, shares_driver=rows == 100_000) for rows in (100_000, 50_000)]
    alone, half = (MemoryPlan.of(core_parts(shape, profiles=True)) for shape in shapes)
    # Who shares the driver's process has all of it and sends none.
    assert alone["sample"] == 4 * 10 * 100_000
    assert half["sample"] == 2 * 4 * 10 * 50_000
    assert MemoryPlan.of(core_parts(shapes[0], profiles=False))["sample"] == 0


def test_columns_of_files_take_memory_while_they_are_decoded_those_in_memory_do_not() -> None:
    def decoders(file_rows: int, columns: int) -> int:
        shape = DataShape(10**6, 10**6, columns, row_bytes=4 * columns, file_rows=file_rows)
        return MemoryPlan.of(core_parts(shape, profiles=False))["decoders"]

    assert decoders(0, 10) == 0
    assert decoders(1_000, 2_000) == 2_000 * 14_000
    # A buffer, a dictionary and a page are bounded, however large the row group.
    assert decoders(10**9, 10) == decoders(10**6, 10) == 10 * 2_752_512


def test_batches_of_small_fragments_are_planned_as_they_are_joined() -> None:
    def batches(fragment_rows: int, row_bytes: int, rows: int = 10**6) -> int:
        shape = DataShape(rows, rows, 10, row_bytes=row_bytes, fragment_rows=fragment_rows)
        return MemoryPlan.of(core_parts(shape, profiles=True, batches=1))["batches"]

    assert batches(50, 40) == 65_536 * 40
    assert batches(50, 2**14) == 1_024 * 2**14
    # A few are read one by one.
    assert batches(50, 40, 2_000) == 50 * 40
    assert batches(40_000, 2**14) == 40_000 * 2**14
    # Of 140,000 rows, 70,000 are read at once; a fragment of fewer rows may be one batch.
    assert batches(140_000, 40) == 81_920 * 40
    assert batches(70_000, 40) == batches(70_000, 40, 10**7) == 70_000 * 40


@pytest.mark.parametrize(
    ("kind", "width"),
    [(pa.float64(), 8), (pa.int8(), 1), (pa.bool_(), 1), (pa.string(), 24), (pa.dictionary(pa.int8(), pa.string()), 4)],
)
def test_columns_are_as_wide_as_their_types(kind: pa.DataType, width: int) -> None:
    assert decoded_width(kind) == width


def table(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table({"a": random.normal(size=rows), "b": random.normal(size=rows), "y": random.integers(0, 2, rows)})


ROLES = ColumnRoles(("a", "b"), ("y",))


def plan_with(memory: int, trainer: str, workers: int = 1, **changes: Any) -> RunPlan:
    nodes = tuple(Node(f"n{i}", "127.0.0.1", 1.0, memory=memory) for i in range(workers))
    resources = ClusterResources(nodes, "ray" if workers > 1 else "inline")
    job = Job(trainer=trainer, data=table(400_000), columns=ROLES, workers=workers, **changes)
    return plan_run(job, default_registry(), resources)


@pytest.mark.parametrize("trainer", ["lightgbm", "xgboost"])
def test_every_part_has_a_reason_and_the_plan_says_what_a_worker_has(trainer: str) -> None:
    plan = plan_with(2**40, trainer)
    assert plan.memory.available == 2**40
    assert all(len(part.why) > 10 for part in plan.memory.parts)
    assert {"process", "batches", "sample", "matrix", "gradients"} <= {part.name for part in plan.memory.parts}
    assert plan.to_dict()["memory_per_worker"]["peak"] == plan.memory.peak


def test_a_trainer_without_a_disk_is_refused_with_the_number_of_workers_that_would_do() -> None:
    alone = plan_with(0, "lightgbm").memory.peak
    with pytest.raises(InfeasibleRequestError, match=r"Use \d+ workers with as much memory each") as caught:
        plan_with(alone - 2**23, "lightgbm")
    workers = int(caught.value.advice.split()[1].replace(",", ""))
    assert plan_with(alone - 2**23, "lightgbm", workers).memory.peak <= alone - 2**23
    warned = plan_with(alone - 2**23, "lightgbm", memory_check="warn")
    assert [warning for warning in warned.warnings if "Use" in warning and "workers" in warning]
    assert not plan_with(alone - 2**23, "lightgbm", memory_check="off").warnings


def test_what_was_measured_stands_beside_what_was_planned(tmp_path: Path) -> None:
    job = Job(trainer="xgboost", data=table(2_000), columns=ROLES, params={"n_estimators": 2}, stage=str(tmp_path))
    events: list[Any] = []
    result = train_on_threads(job, 2, observers=[events.append])
    assert set(result.peak_memory) == set(PHASES)
    assert all(peak > 2**20 for peak in result.peak_memory.values())
    told = {(event.worker, event.phase) for event in events if event.name == "MemoryMeasured"}
    assert told == {(worker, phase) for worker in range(2) for phase in PHASES}
    (record,) = list_records(result.store)
    assert record.peak_memory == result.peak_memory
    assert set(record.plan["memory_per_worker"]["phases"]) == set(PHASES)


def test_the_peak_is_that_since_it_was_set_back() -> None:
    reset_peak()
    before = peak_bytes()
    held = np.ones(2**23)
    grown = peak_bytes()
    assert grown - before >= 2**25
    del held
    reset_peak()
    assert peak_bytes() <= grown


def test_missing_values_make_the_plan_wider_once_they_are_known(tmp_path: Path) -> None:
    rows = 3_000
    whole = table(rows)
    gaps = whole.set_column(0, "a", pa.array([None, *np.arange(rows - 1.0)]))
    matrices = []
    for data in (whole, gaps):
        job = Job(trainer="xgboost", data=data, columns=ROLES, params={"n_estimators": 1}, stage=str(tmp_path))
        matrices.append(train_on_threads(job, 1).plan.memory["matrix"])
    assert matrices[1] - matrices[0] == 2 * rows * 3


def test_a_column_that_is_wider_than_planned_is_refused_before_the_matrix_is_made(tmp_path: Path) -> None:
    from shardfit.profile import Profile, SampleSpec
    from shardfit.run_plan import plan_profiled

    plan = plan_with(0, "xgboost", params={"storage": "memory"})
    tight = plan_with(plan.memory.peak + 2**20, "xgboost", params={"storage": "memory"})
    profile = Profile.empty(2, 1, 0, SampleSpec(0, 0.0, 0))
    assert plan_profiled(tight, tight.config, profile, 512).memory == tight.memory
    profile.missing[0] = 1
    with pytest.raises(InfeasibleRequestError, match=r"in the phase 'fit'"):
        plan_profiled(tight, tight.config, profile, 512)


def test_a_plan_of_10_terabytes_and_1000_workers_takes_less_than_a_gigabyte() -> None:
    import tracemalloc

    from benchmarks.large_plan import FRAGMENTS, WORKERS, plan_large

    tracemalloc.start()
    plan = plan_large()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    train = plan.datasets["train"]
    assert (len(train.fragments), plan.layout.workers) == (FRAGMENTS, WORKERS)
    assert train.bytes > 9.4 * 10**12
    assert peak < 10**9
    assert plan.memory.peak > 2**30

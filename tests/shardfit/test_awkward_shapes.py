"""Tables that are awkward for their shape: wide, in many files, in one huge row group, skewed, partly never read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix

from benchmarks.large_plan import SimulatedSource
from shardfit.casts import plan_casts
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError, UnreadableSourceError, UnsupportedTypeError
from shardfit.job import Job
from shardfit.matrix_reader import MatrixSpec
from shardfit.registry import default_registry
from shardfit.run_plan import RunPlan, plan_run
from shardfit.saved_spec import spec_to_values
from shardfit.scaling import ClusterResources, Node
from shardfit.sources import parquet
from shardfit.sources.parquet import OPEN_FILES, ParquetSource
from shardfit.testing.worker_threads import train_on_threads

ROLES = ColumnRoles(("a", "b"), ("y",))


def rows_of(rows: int, columns: int = 2) -> pa.Table:
    random = np.random.default_rng(rows)
    names = ["a", "b", *(f"f{j}" for j in range(2, columns))]
    features = {name: random.random(rows, dtype=np.float32) for name in names}
    return pa.table({**features, "y": (features["a"] > 0.5).astype(np.float32)})


def planned(data: object, workers: int, memory: int = 0, **changes: Any) -> RunPlan:
    nodes = tuple(Node(f"n{i}", "127.0.0.1", 1.0, memory=memory) for i in range(workers))
    job = Job(**{"trainer": "xgboost", "data": data, "columns": ROLES, "workers": workers, **changes})
    return plan_run(job, default_registry(), ClusterResources(nodes, "ray"))


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_five_thousand_columns(trainer: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"params": {"n_estimators": 2, "max_bin": 16}, "stage": str(tmp_path)}
    job = Job(trainer=trainer, data=rows_of(200, 5_000), columns=ColumnRoles(label=("y",)), **fields)
    result = train_on_threads(job, 1)
    assert len(result.plan.roles.features) == 5_000
    assert result.coverage["train"].handed.rows == 200


def test_what_is_saved_of_wide_data_takes_no_walk_through_all_columns_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"f{j}" for j in range(300))
    roles = ColumnRoles(names, ("y",))
    spec = MatrixSpec(roles, plan_casts(pa.schema([(name, pa.float32()) for name in roles.all]), roles.all))
    walks: list[ColumnRoles] = []
    inner = ColumnRoles.all.fget
    monkeypatch.setattr(ColumnRoles, "all", property(lambda self: walks.append(self) or inner(self)))
    assert len(spec_to_values(spec)["casts"]) == 301
    assert len(walks) < 10


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc: run on Linux")
def test_many_small_files_are_not_held_open(tmp_path: Path) -> None:
    for i in range(300):
        pq.write_table(rows_of(5), tmp_path / f"{i:03d}.parquet")
    before = open_files()
    source = ParquetSource([str(tmp_path)])
    fragments = source.fragments()
    assert (len(fragments), open_files()) == (300, before)
    most = 0
    for fragment in fragments:
        for _ in source.read(fragment, ["a", "y"], 0, 5, 100):
            most = max(most, open_files() - before)
    assert 0 < most <= OPEN_FILES + 1
    source.close()
    assert open_files() == before
    # It can be read again.
    assert sum(batch.num_rows for batch in source.read(fragments[0], ["a"], 0, 5, 100)) == 5


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc: run on Linux")
def test_no_file_is_open_after_training(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(2):
        pq.write_table(rows_of(5), tmp_path / "data" / f"{i}.parquet")
    before = {path.resolve() for path in Path("/proc/self/fd").iterdir()}
    fields: dict[str, Any] = {"params": {"n_estimators": 1}, "stage": str(tmp_path / "stage")}
    result = train_on_threads(Job(trainer="xgboost", data=str(tmp_path / "data"), columns=ROLES, **fields), 1)
    assert result.coverage["train"].handed.rows == 10
    after = {path.resolve() for path in Path("/proc/self/fd").iterdir()}
    assert not [path for path in after - before if path.suffix == ".parquet"]


def huge_row_group(folder: Path) -> tuple[str, int]:
    rows = 1_000_000
    path = folder / "huge.parquet"
    pq.write_table(rows_of(rows), path, row_group_size=rows, compression="none", use_dictionary=False)
    return str(path), rows


def most_decoded(source: ParquetSource, rows: int) -> int:
    """Most bytes that Arrow holds while a row group is read a batch at a time."""
    pool, before = pa.default_memory_pool(), pa.total_allocated_bytes()
    (fragment,) = source.fragments()
    return max(pool.bytes_allocated() - before for _ in source.read(fragment, ["a", "b", "y"], 0, rows, 8192))


def test_a_huge_row_group_is_not_fetched_whole_from_remote_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = huge_row_group(tmp_path)
    # Anything but the local file system counts as remote.
    remote = {"filesystem": pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())}
    fetched = most_decoded(ParquetSource(["huge.parquet"], remote), rows)
    assert fetched > 12 * rows
    monkeypatch.setattr(parquet, "_MOST_FETCHED", 2**20)
    monkeypatch.setattr(parquet, "_REMOTE_BUFFER", 2**17)
    assert most_decoded(ParquetSource(["huge.parquet"], remote), rows) < 12 * rows / 3


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_a_fragment_larger_than_the_memory_of_a_worker_is_divided_and_read_in_batches(trainer: str) -> None:
    memory, workers = 4 * 2**30, 16
    source = SimulatedSource(64 * 10**9, 1, 100)
    plan = planned(DataConnector.of(source), workers, memory, trainer=trainer, columns=ColumnRoles(label=("label",)))
    train = plan.datasets["train"]
    (fragment,) = train.fragments
    assert fragment.bytes > 10 * memory
    assert set(train.shard_plan.worker_rows - fragment.rows // workers) <= {0, 1}
    assert plan.memory["batches"] < 2**26
    assert plan.memory.peak <= memory


def test_columns_that_nobody_needs_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    table = rows_of(1_000).append_column("text", pa.array(["long " * 20_000] * 1_000))
    pq.write_table(table, path, compression="none", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(3)
    assert chunk.total_compressed_size > 90_000_000
    # What is read there is no page.
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\xff" * 4096)
    source = ParquetSource([str(path)])
    with pytest.raises(UnreadableSourceError, match="'text'"):
        list(source.read(source.fragments()[0], ["text"], 0, 1_000, 100))
    before = pa.default_memory_pool().max_memory()
    job = Job(trainer="xgboost", data=str(path), columns=ROLES, params={"n_estimators": 2}, stage=str(tmp_path / "s"))
    result = train_on_threads(job, 1)
    assert result.coverage["train"].handed.rows == 1_000
    assert pa.default_memory_pool().max_memory() <= max(before, 2**25)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_files_of_very_different_sizes_are_dealt_evenly(workers: int, tmp_path: Path) -> None:
    sizes = [1, 100_000, 0, 7, 1, 1_000, 3, 1]
    for i, rows in enumerate(sizes):
        pq.write_table(rows_of(rows), tmp_path / f"{i}.parquet")
    found = planned(str(tmp_path), workers).datasets["train"].shard_plan.worker_rows
    assert found.sum() == sum(sizes)
    assert found.max() - found.min() <= 1


def test_sparse_data_is_refused_and_not_made_dense() -> None:
    with pytest.raises(InvalidArgumentError, match="none of the sources claims it"):
        planned(DataConnector.of(csr_matrix(np.eye(3))), 1)
    lists = pa.table({"a": pa.array([[0, 3], [5]]), "b": [0.0, 1.0], "y": [0.0, 1.0]})
    with pytest.raises(UnsupportedTypeError, match="its type is list"):
        planned(lists, 1)


TWENTY_FITS = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from shardfit.columns import ColumnRoles
from shardfit.job import Job
from shardfit.train import train

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

random = np.random.default_rng(0)
columns = {f"f{j}": random.random(20_000, dtype=np.float32) for j in range(20)}
table = pa.table(columns | {"y": (columns["f0"] > 0.5).astype(np.float32)})
params = {"n_estimators": 1, "max_bin": 64}
sizes = []
for i in range(20):
    fields = {"params": params, "stage": sys.argv[2], "cpus_per_worker": 1}
    train(Job(trainer=sys.argv[1], data=table, columns=ColumnRoles(label=("y",)), **fields))
    sizes.append(resident())
print(sizes[4], sizes[19])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc: run on Linux")
@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_twenty_fits_in_one_process_do_not_grow(trainer: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWENTY_FITS, trainer, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    fifth, last = map(int, done.stdout.split())
    # Twice the table; a fit that kept anything of it would keep fifteen.
    assert last - fifth < 2 * 20_000 * 21 * 4, (fifth, last)

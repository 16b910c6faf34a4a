"""Rows are read from far away once, kept while they fit, and gone afterwards, whatever became of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest

from shardfit.connector import DataConnector
from shardfit.errors import InvalidArgumentError, InvalidValueError
from shardfit.source import DataSource, Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit.sources.concat import ConcatSource
from shardfit_stages.spool import Spool, SpoolSettings, remove_abandoned
from shardfit_stages.stage_source import SpooledSource, open_files
from shardfit_xgboost import XGBEstimator

ROWS = 1000


class Counting(DataSource):
    """A table that counts how often it is read."""

    def __init__(self, table: pa.Table) -> None:
        self._inner = ArrowSource(table)
        self.reads = 0

    def schema(self) -> pa.Schema:
        return self._inner.schema()

    def fragments(self) -> Sequence[Fragment]:
        return self._inner.fragments()

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self.reads += 1
        return self._inner.read(fragment, columns, start, stop, batch_rows)

    def describe(self) -> str:
        return "a table"


def table(rows: int = ROWS) -> pa.Table:
    words = pa.array([f"w{i % 5}" for i in range(rows)]).dictionary_encode()
    return pa.table({"x": pa.array(range(rows), pa.int64()), "word": words})


def spooled(folder: Path, budget: int | None = None, passes: int = 3) -> tuple[Counting, DataSource]:
    inner = Counting(table())
    settings = SpoolSettings(os.fspath(folder), budget)
    return inner, SpooledSource(inner, ["@A.B.C/train"], settings).for_passes(passes)


def one_pass(source: DataSource, start: int = 0, stop: int = ROWS) -> pa.Table:
    (fragment,) = source.fragments()
    return pa.Table.from_batches(list(source.read(fragment, ["word", "x"], start, stop, 64)))


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_rows_are_read_once_for_any_number_of_passes(tmp_path: Path) -> None:
    inner, source = spooled(tmp_path)
    first, *others = (one_pass(source) for _ in range(3))
    assert inner.reads == 1
    assert len(kept(tmp_path)) == 1
    assert all(other.equals(first) for other in others)
    assert first.column("x").to_pylist() == list(range(ROWS))
    assert one_pass(source, 10, 20).num_rows == 10
    source.close()
    assert kept(tmp_path) == []
    assert one_pass(source).equals(first)
    source.close()


def test_what_is_read_once_is_not_kept(tmp_path: Path) -> None:
    _, source = spooled(tmp_path, passes=1)
    one_pass(source)
    _, source = spooled(tmp_path, budget=0)
    one_pass(source)
    assert kept(tmp_path) == []
    assert source.warnings() == ()


def test_rows_that_do_not_fit_are_read_again_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner, source = spooled(tmp_path, budget=80_000)
    assert [one_pass(source, 0, 500).num_rows for _ in range(2)] == [500, 500]
    assert inner.reads == 1
    assert caplog.records == []
    for _ in range(2):
        assert one_pass(source, 500, 1000).column("x").to_pylist() == list(range(500, 1000))
    assert inner.reads == 3
    (record,) = caplog.records
    assert "do not fit on local disk" in record.getMessage()
    assert sum(path.stat().st_size for path in kept(tmp_path)) <= 80_000
    source.close()


def test_batches_that_grow_past_the_estimate_are_given_up_and_come_whole(tmp_path: Path) -> None:
    words = ["a"] * 64 + ["long " * 100] * 936
    inner = Counting(pa.table({"word": words, "x": range(ROWS)}))
    source = SpooledSource(inner, ["@A.B.C"], SpoolSettings(os.fspath(tmp_path))).for_passes(2)
    assert [one_pass(source).column("word").to_pylist() == words for _ in range(2)] == [True, True]
    assert inner.reads == 2
    assert kept(tmp_path) == []
    source.close()


def test_a_pass_that_is_given_up_is_not_kept(tmp_path: Path) -> None:
    inner, source = spooled(tmp_path)
    (fragment,) = source.fragments()
    reading = source.read(fragment, ["x"], 0, ROWS, 64)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert kept(tmp_path) == []
    assert sum(len(batch) for batch in source.read(fragment, ["x"], 0, ROWS, 64)) == ROWS
    assert inner.reads == 2
    source.close()


def test_the_plan_says_what_is_kept_where_and_how_much(tmp_path: Path) -> None:
    (warning,) = spooled(tmp_path, budget=50 * 2**20)[1].warnings()
    for part in ("'@A.B.C/train'", "3 times", repr(os.fspath(tmp_path)), "50 MiB", "read again"):
        assert part in warning
    joined = ConcatSource([SpooledSource(Counting(table()), ["@A.B.C"], SpoolSettings(os.fspath(tmp_path)))])
    assert joined.warnings() == ()
    assert "read 2 times" in "".join(joined.for_passes(2).warnings())


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, source = spooled(tmp_path / "file")
    with pytest.raises(InvalidArgumentError, match="SHARDFIT_SPOOL_FOLDER"):
        one_pass(source)


def test_a_budget_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFIT_SPOOL_BYTES", "lots")
    with pytest.raises(InvalidArgumentError, match="'lots'"):
        open_files(["s3://bucket/a.parquet"], {}, None)


@pytest.mark.parametrize("label", [1.0, None], ids=["a run that goes well", "a run that fails on the way"])
def test_nothing_is_left_of_a_run_in_this_process(label: float | None, tmp_path: Path) -> None:
    inner = Counting(pa.table({"x": [float(i) for i in range(100)], "y": [0.0] * 99 + [label]}))
    source = SpooledSource(inner, ["@A.B.C"], SpoolSettings(os.fspath(tmp_path / "spool")))
    estimator = XGBEstimator(1, artifact_stage_location=os.fspath(tmp_path / "stage"))
    with nullcontext() if label else pytest.raises(InvalidValueError):
        estimator.fit(DataConnector.of(source), ["x"], "y")
    assert inner.reads == 1
    assert kept(tmp_path / "spool") == []
    # The folder was in use: the lock of all who share it is there.
    assert (tmp_path / "spool" / ".lock").exists()


def test_a_folder_that_another_user_has_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    (tmp_path / "shardfit-spool-4321").mkdir()
    with pytest.raises(PermissionError):
        Spool(SpoolSettings())
    (tmp_path / "shardfit-spool-4321").rmdir()
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    SpoolSettings().root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        Spool(SpoolSettings())


KILLED = """
import sys, time
from pathlib import Path
import pyarrow as pa
from shardfit_stages.spool import Spool, SpoolSettings
spool = Spool(SpoolSettings(sys.argv[1]))
batch = pa.record_batch({"x": list(range(1000))})
reading = spool.read("half", 2000, lambda: iter([batch, batch]))
next(reading)
list(spool.read("whole", 1000, lambda: iter([batch])))
print("ready", flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_goes_with_the_next_run_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, os.fspath(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert remove_abandoned(tmp_path) == 0
        assert len(kept(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
    assert len(kept(tmp_path)) == 2
    _, source = spooled(tmp_path)
    one_pass(source)
    assert len(kept(tmp_path)) == 1
    source.close()
    assert kept(tmp_path) == []

"""A shard as matrices: every row once, groups across batches, and a second pass that differs is noticed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.casts import plan_casts
from shardfit.category_map import CategoryMap
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.coverage import RowDigest
from shardfit.errors import CoverageError
from shardfit.job import Job
from shardfit.matrix_reader import MatrixReader, MatrixSpec, digest_content
from shardfit.shard_plan import World
from shardfit.shard_reader import ShardReader
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import DataSource, Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import awkward_table
from shardfit.testing.worker_threads import train_on_threads
from shardfit.train import train

TABLE = pa.table(
    {
        "x": pa.array([1.0, None, float("nan"), 4.0, -999.0], pa.float64()),
        "kind": ["b", "a", None, "never seen", "b"],
        "y": pa.array([1, 2, 3, 4, 5], pa.int64()),
        "z": [0.5, 0.25, 0.125, 0.0, 1.0],
        "w": [1.0, 2.0, 3.0, 4.0, 5.0],
        "m": [9.0, 8.0, 7.0, 6.0, 5.0],
        "q": ["one", "one", "two", "two", "two"],
    }
)
KINDS = {"kind": CategoryMap.of("kind", ["a", "b"])}


def reader_of(table: pa.Table, roles: ColumnRoles, batch_rows: int = 2, missing: float = float("nan")) -> MatrixReader:
    source = ArrowSource(table)
    fragments = source.fragments()
    (shard,) = shard_by_rows(fragments, World(1)).shards(fragments)
    casts = plan_casts(table.schema, roles.all, roles.categorical, roles.group)
    reader = ShardReader("train", source, shard, roles.all, batch_rows)
    return MatrixReader(reader, MatrixSpec(roles, casts, KINDS, missing=missing))


EVERYTHING = ColumnRoles(("x", "kind"), ("y",), "w", "q", ("m",), ("kind",))


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_every_role_arrives_with_its_rows(batch_rows: int) -> None:
    batches = list(reader_of(TABLE, EVERYTHING, batch_rows).batches())
    features = np.concatenate([batch.features for batch in batches])
    np.testing.assert_array_equal(features[:, 0], np.array([1, np.nan, np.nan, 4, -999], dtype=np.float32))
    np.testing.assert_array_equal(features[:, 1], np.array([1, 0, np.nan, np.nan, 1], dtype=np.float32))
    for name, expected in {
        "row_ids": [0, 1, 2, 3, 4],
        "labels": [1, 2, 3, 4, 5],
        "weights": [1, 2, 3, 4, 5],
        "base_margin": [9, 8, 7, 6, 5],
        "group_starts": [True, False, True, False, False],
    }.items():
        assert np.concatenate([getattr(batch, name) for batch in batches]).tolist() == expected
    assert all(batch.features.dtype == np.float32 for batch in batches)
    assert all(batch.features.flags.c_contiguous for batch in batches)


def test_several_labels_and_margins_are_columns() -> None:
    roles = ColumnRoles(("x",), ("y", "z"), base_margin=("m", "w"))
    (batch,) = reader_of(TABLE, roles, 100).batches()
    assert batch.labels.shape == batch.base_margin.shape == (5, 2)
    assert batch.labels[:, 1].tolist() == TABLE["z"].to_pylist()
    assert batch.weights is batch.group_starts is None


def test_a_value_that_stands_for_missing_does_so_in_numbers_only() -> None:
    roles = ColumnRoles(("x", "kind"), ("y",), categorical=("kind",))
    features = np.concatenate([batch.features for batch in reader_of(TABLE, roles, missing=-999.0).batches()])
    assert np.isnan(features[:, 0]).tolist() == [False, True, True, False, True]
    codes = np.concatenate([batch.features for batch in reader_of(TABLE, roles, missing=1.0).batches()])[:, 1]
    np.testing.assert_array_equal(codes, np.array([1, 0, np.nan, np.nan, 1], dtype=np.float32))


@pytest.mark.parametrize("missing", [float("nan"), -999.0, 1.0])
@pytest.mark.parametrize("batch_rows", [2, 100])
def test_columns_are_those_of_the_matrix(missing: float, batch_rows: int) -> None:
    table = TABLE.append_column("plain", pa.array([1.0, -999.0, 0.0, -0.0, 5.0], pa.float32()))
    roles = ColumnRoles(("x", "plain", "kind"), ("y",), "w", categorical=("kind",))
    reader = reader_of(table, roles, batch_rows, missing)
    for whole, batch in zip(reader.batches(), reader.batches(by_columns=True), strict=True):
        columns = batch.columns
        assert columns is not None
        assert batch.features.shape == (len(columns), 0)
        np.testing.assert_array_equal(columns.matrix(), whole.features)
        for start in range(len(columns)):
            for stop in range(start + 1, len(columns) + 1):
                for found in (columns, columns.between(start, stop)):
                    part = (start, stop) if found is columns else (0, stop - start)
                    values = [found.column(j, *part) for j in range(3)]
                    np.testing.assert_array_equal(np.stack(values, axis=1), whole.features[start:stop])
                    assert all(one.flags.c_contiguous and one.dtype == np.float32 for one in values)
        assert (batch.labels == whole.labels).all()
    assert table["plain"].to_pylist()[1] == -999.0


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 5)), min_size=1), st.integers(1, 7))
def test_groups_start_where_the_value_changes_wherever_batches_end(
    runs: list[tuple[str | None, int]], batch_rows: int
) -> None:
    values = [value or "c" for value, length in runs for _ in range(length)]
    table = pa.table({"x": np.zeros(len(values)), "y": np.zeros(len(values)), "q": values})
    reader = reader_of(table, ColumnRoles(("x",), ("y",), group="q"), batch_rows)
    expected = [i == 0 or values[i] != values[i - 1] for i in range(len(values))]
    for _ in range(2):
        assert np.concatenate([batch.group_starts for batch in reader.batches()]).tolist() == expected


@pytest.mark.parametrize("values", [[7, 7, 8], [True, False, False], ["a", "a", "b"]])
def test_groups_of_any_type_and_in_dictionaries_are_told_apart(values: list[object]) -> None:
    for column in (pa.array(values), pa.array(values).dictionary_encode()):
        table = pa.table({"x": np.zeros(3), "y": np.zeros(3), "q": column})
        (batch,) = reader_of(table, ColumnRoles(("x",), ("y",), group="q"), 100).batches()
        assert batch.group_starts.tolist() == [i == 0 or values[i] != values[i - 1] for i in range(3)]


def test_what_was_yielded_counts_as_handed_over_and_every_pass_counts_anew() -> None:
    reader = reader_of(TABLE, EVERYTHING)
    batches = reader.batches()
    next(batches)
    assert reader.handed == RowDigest.of_range(0, 2)
    batches.close()
    for _ in range(2):
        content = sum(digest_content(batch.row_ids, batch.labels) for batch in reader.batches()) % 2**64
        assert reader.handed == RowDigest.of_range(0, 5)
        assert reader.content == content
        assert reader.coverage(5, content).exact


@pytest.mark.parametrize(("rows", "content"), [(4, 0), (5, 1)])
def test_a_library_that_holds_other_rows_and_other_content_are_noticed(rows: int, content: int) -> None:
    reader = reader_of(TABLE, EVERYTHING)
    list(reader.batches())
    with pytest.raises(CoverageError):
        reader.coverage(rows, reader.content + content).check("train")


def test_a_batch_without_rows_has_the_shapes_of_the_others() -> None:
    for roles in (EVERYTHING, ColumnRoles(("x",), ("y", "z"), base_margin=("m", "w"))):
        reader = reader_of(TABLE, roles)
        (full,) = reader_of(TABLE, roles, 100).batches()
        empty = reader.no_rows()
        for name in ("row_ids", "features", "labels", "weights", "group_starts", "base_margin"):
            one, other = getattr(empty, name), getattr(full, name)
            if other is None:
                assert one is None
            else:
                assert (one.shape[1:], one.dtype, len(one)) == (other.shape[1:], other.dtype, 0)


LABELS = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30)


@given(LABELS, st.data())
def test_the_digest_of_parts_adds_up_and_any_changed_label_changes_it(values: list[float], data: st.DataObject) -> None:
    labels, ids = np.array(values, dtype=np.float32), np.arange(len(values))
    whole = digest_content(ids, labels)
    cut = data.draw(st.integers(0, len(values)))
    assert (digest_content(ids[:cut], labels[:cut]) + digest_content(ids[cut:], labels[cut:])) % 2**64 == whole
    row = data.draw(st.integers(0, len(values) - 1))
    changed = labels.copy()
    changed[row] = np.nextafter(changed[row], np.float32(1000))
    assert digest_content(ids, changed) != whole


class MisbehavingSource(DataSource):
    """Gives the rows as they are on the first pass; later, one row twice and a later one not at all."""

    def __init__(self, table: pa.Table, honest_passes: int) -> None:
        self._inner = ArrowSource(table, fragment_rows=100)
        self._honest_passes = honest_passes
        self._passes = 0

    def schema(self) -> pa.Schema:
        return self._inner.schema()

    def fragments(self) -> Sequence[Fragment]:
        return self._inner.fragments()

    def describe(self) -> str:
        return "a misbehaving source"

    def in_memory(self) -> bool:
        return True

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        self._passes += fragment.index == 0 and start == 0
        rows = pa.Table.from_batches(self._inner.read(fragment, columns, start, stop, batch_rows))
        if self._passes > self._honest_passes and fragment.index == 3:
            rows = rows.take([*range(11), *range(10, 60), *range(61, rows.num_rows)])
        yield from rows.to_batches()


def job_of(source: DataSource, stage: Path) -> Job:
    roles = ColumnRoles(("normal", "coarse"), ("delay",))
    params = {"n_estimators": 2}
    return Job(
        trainer="xgboost",
        data=DataConnector.of(source),
        columns=roles,
        params=params,
        engine="inline",
        workers=1,
        stage=str(stage),
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_a_source_that_repeats_a_row_and_drops_another_after_the_profile_is_caught(
    workers: int, tmp_path: Path
) -> None:
    train_on_threads(job_of(MisbehavingSource(awkward_table(700), honest_passes=10), tmp_path / "sound"), workers)
    with pytest.raises(CoverageError, match="content"):
        train_on_threads(job_of(MisbehavingSource(awkward_table(700), honest_passes=1), tmp_path / "bad"), workers)
    assert not list(LocalStore(tmp_path / "bad").list("model/"))


def repeats_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ShardReader._decode

    def decode(self: ShardReader) -> Iterator[object]:
        for batch in sound(self):
            batch.row_ids[1:2] = batch.row_ids[:1]
            yield batch

    monkeypatch.setattr(ShardReader, "_decode", decode)


def test_a_reader_that_counts_a_row_twice_is_caught_and_nothing_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(ArrowSource(awkward_table(700)), tmp_path)
    repeats_a_row(monkeypatch)
    with pytest.raises(CoverageError, match="train"):
        train(job)
    assert not list(LocalStore(tmp_path).list("model/"))

"""The group index: one pass over the group column, whatever the fragments and batches."""

from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardfit.groups
from shardfit.errors import BrokenGroupError, InvalidValueError, UnknownColumnError, UnsupportedTypeError
from shardfit.groups import GroupIndex, build_group_index
from shardfit.sources.arrow import ArrowSource

KINDS = {
    "int": lambda values: pa.array(values, pa.int64()),
    "text": lambda values: pa.array([f"group {value}" for value in values], pa.string()),
    "dictionary": lambda values: pa.array([f"group {value}" for value in values], pa.string()).dictionary_encode(),
    "float": lambda values: pa.array([value / 2 for value in values], pa.float64()),
    "bool": lambda values: pa.array([value % 2 == 0 for value in values], pa.bool_()),
}


@given(
    values=st.lists(st.integers(0, 4), max_size=60),
    kind=st.sampled_from(sorted(KINDS)),
    size=st.integers(1, 20),
    check_first_at=st.sampled_from([1, 3, 1000]),
)
def test_run_lengths_equal_a_naive_count_and_broken_groups_name_their_rows(
    values: list[int], kind: str, size: int, check_first_at: int
) -> None:
    column = KINDS[kind](values)
    source = ArrowSource(pa.table({"group": column}), fragment_rows=size)
    runs = [(value, len(list(rows))) for value, rows in groupby(column.to_pylist())]
    starts = np.cumsum([0, *(length for _, length in runs)])
    seen: dict[object, int] = {}
    broken = next((i for i, (value, _) in enumerate(runs) if seen.setdefault(value, i) != i), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shardfit.groups, "_FIRST_CHECK", check_first_at)
        patch.setattr(shardfit.groups, "_BATCH_ROWS", 4)
        if broken is None:
            index = build_group_index(source, "group")
            assert index.run_lengths.tolist() == [length for _, length in runs]
            assert index.boundaries.tolist() == starts.tolist()
            return
        with pytest.raises(BrokenGroupError) as caught:
            build_group_index(source, "group")
    message = str(caught.value)
    value = runs[broken][0]
    assert f"group {value!r} starts in row {starts[seen[value]]} (" in message
    assert f"again in row {starts[broken]} (" in message
    assert f"fragment {starts[broken] // size})" in message


@pytest.mark.parametrize("values", [[1.0, 2.0, None], [1.0, 2.0, float("nan")]])
def test_a_row_without_a_group_is_named(values: list[float | None]) -> None:
    source = ArrowSource(pa.table({"group": values}), fragment_rows=2)
    with pytest.raises(InvalidValueError, match=r"'group'.*fragment 1.*row 2 of the dataset"):
        build_group_index(source, "group")


def test_a_group_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownColumnError, match="'grop'"):
        build_group_index(ArrowSource(pa.table({"group": [1]})), "grop")


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.nulls(1), pa.array([{"a": 1}])])
def test_groups_of_a_type_that_can_not_be_compared_are_refused(column: pa.Array) -> None:
    with pytest.raises(UnsupportedTypeError, match="'group'"):
        build_group_index(ArrowSource(pa.table({"group": column})), "group")


def test_an_empty_run_is_no_group() -> None:
    with pytest.raises(ValueError, match="found 0"):
        GroupIndex(np.array([3, 0]))

"""The cast policy: every Arrow type has one row, nulls are NaN, and categories mean the same everywhere."""

import pickle
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.casts import CategoryMap, ColumnCast, cast_to_float32, distinct_categories, encode_features, plan_casts
from shardfit.errors import InvalidValueError, UnknownColumnError, UnsupportedTypeError

NOON = datetime(1970, 1, 2, 12, tzinfo=UTC)
POLICY = [
    (pa.int8(), -3, "number", -3),
    (pa.uint64(), 2**63, "number", 2.0**63),
    (pa.float16(), 1.5, "number", 1.5),
    (pa.float32(), 0.1, "number", np.float32(0.1)),
    (pa.float64(), 1e300, "number", np.inf),
    (pa.bool_(), True, "boolean", 1),
    (pa.decimal128(9, 3), Decimal("1.125"), "decimal", 1.125),
    (pa.decimal256(50, 3), Decimal("-1.125"), "decimal", -1.125),
    (pa.date32(), date(1970, 1, 11), "date", 10),
    (pa.date64(), date(1969, 12, 31), "date", -1),
    (pa.timestamp("s"), datetime(1970, 1, 2, 12), "timestamp", 129_600),
    (pa.timestamp("ns", "America/New_York"), NOON, "timestamp", 129_600),
    (pa.time32("ms"), time(1, 0, 0, 500_000), "time", 3600.5),
    (pa.time64("us"), time(0, 0, 1, 250_000), "time", 1.25),
    (pa.duration("us"), timedelta(seconds=90, milliseconds=500), "duration", 90.5),
    (pa.dictionary(pa.int8(), pa.int64()), 7, "number", 7),
]


@pytest.mark.parametrize(("kind", "value", "rule", "expected"), POLICY, ids=[str(row[0]) for row in POLICY])
def test_each_type_is_cast_by_its_row_of_the_policy(kind: pa.DataType, value: Any, rule: str, expected: float) -> None:
    full = pa.array([value, None, value, value], kind)
    for array in (full, full.slice(1, 2), full.slice(2), full.slice(0, 0)):
        (cast,) = plan_casts(pa.schema([("x", kind)]), ["x"])
        assert (cast.name, cast.arrow_type, cast.rule) == ("x", str(kind), rule)
        column = cast_to_float32(array, cast)
        wanted = [np.nan if item is None else expected for item in array.to_pylist()]
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, np.array(wanted, np.float32))


def test_a_column_of_nulls_is_all_missing() -> None:
    (cast,) = plan_casts(pa.schema([("x", pa.null())]), ["x"])
    assert np.isnan(cast_to_float32(pa.nulls(3), cast)).all()


def test_the_plan_is_told_what_a_timestamp_loses() -> None:
    schema = pa.schema([("t", pa.timestamp("us")), ("x", pa.float32())])
    timestamp, number = plan_casts(schema, ["t", "x"])
    assert "128 s" in timestamp.note
    assert number.note == ""
    now = pa.array([1_700_000_000, 1_700_000_064, 1_700_000_200], pa.timestamp("s"))
    seconds = cast_to_float32(now, timestamp).astype(np.int64)
    assert abs(seconds - [1_700_000_000, 1_700_000_064, 1_700_000_200]).max() <= 64


def test_floats_without_nulls_are_not_copied() -> None:
    array = pa.array(np.arange(10, dtype=np.float32)).slice(3)
    column = cast_to_float32(array, ColumnCast("x", "float", "number"))
    assert column.ctypes.data == array.buffers()[1].address + 3 * 4


@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30))
def test_a_number_does_not_depend_on_nulls_beside_it(values: list[int | None]) -> None:
    cast = ColumnCast("x", "int64", "number")
    together = cast_to_float32(pa.array(values, pa.int64()), cast)
    alone = [cast_to_float32(pa.array([value], pa.int64()), cast)[0] for value in values]
    np.testing.assert_array_equal(together, np.array(alone, np.float32))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_undeclared_text_is_told_to_be_declared(kind: pa.DataType) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"'city'.*categorical_cols"):
        plan_casts(pa.schema([("city", kind)]), ["city"])


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.binary()])
@pytest.mark.parametrize("categorical", [[], ["x"]])
def test_nested_and_binary_columns_are_refused(kind: pa.DataType, categorical: list[str]) -> None:
    with pytest.raises(UnsupportedTypeError, match="'x'"):
        plan_casts(pa.schema([("x", kind)]), ["x"], categorical)


def test_a_text_column_may_hold_groups_and_is_then_never_a_number() -> None:
    (cast,) = plan_casts(pa.schema([("q", pa.string())]), ["q"], group="q")
    assert cast.rule == "group"
    with pytest.raises(UnsupportedTypeError, match="'group'"):
        cast_to_float32(pa.array([1]), cast)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UnknownColumnError, match="'y'"):
        plan_casts(pa.schema([("x", pa.int8())]), ["y"])


def test_a_batch_of_another_kind_than_planned_is_refused() -> None:
    with pytest.raises(UnsupportedTypeError, match="'timestamp'"):
        cast_to_float32(pa.array([0], pa.timestamp("s")), ColumnCast("x", "int64", "number"))
    with pytest.raises(UnsupportedTypeError, match="category map"):
        cast_to_float32(pa.array(["a"]), ColumnCast("x", "string", "category"))


CATEGORIES = st.one_of(
    st.tuples(st.just(pa.string()), st.lists(st.none() | st.text(max_size=3), max_size=30)),
    st.tuples(st.just(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=30)),
    st.tuples(st.just(pa.uint64()), st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=30)),
    st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans(), max_size=30)),
)


@given(column=CATEGORIES, dictionary=st.booleans(), seen=st.integers(0, 30), offset=st.integers(0, 3))
def test_codes_lead_back_to_the_values_and_the_unseen_is_missing(
    column: tuple[pa.DataType, list[Any]], dictionary: bool, seen: int, offset: int
) -> None:
    kind, values = column
    array = pa.array(values, kind)
    array = (array.dictionary_encode() if dictionary else array).slice(offset)
    values = values[offset:]
    known = CategoryMap.of(
        "x", distinct_categories(array.slice(0, seen)) | distinct_categories(array.slice(seen // 2, 0))
    )
    assert set(known.values) == {value for value in values[:seen] if value is not None}
    assert all(type(value) in (str, int, bool) for value in known.values)
    codes = known.encode(array)
    assert codes.dtype == np.float32
    decoded = [None if np.isnan(code) else known.values[int(code)] for code in codes]
    assert decoded == [value if value in known.values else None for value in values]
    copy = CategoryMap.from_json(known.to_json())
    assert copy == known == pickle.loads(pickle.dumps(known))
    assert [type(value) for value in copy.values] == [type(value) for value in known.values]


def test_only_values_that_occur_are_categories_not_the_rest_of_a_dictionary() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, None, 2]), pa.array(["a", "b", "c"]))
    assert distinct_categories(array) == {"a", "c"}


def test_dictionaries_in_another_order_give_the_same_codes() -> None:
    known = CategoryMap.of("x", {"b", "a"})
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "b"]))
    two = pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["b", "a"]))
    assert known.encode(one).tolist() == known.encode(two).tolist() == [0, 1]


def test_whole_numbers_kept_as_floats_are_the_same_categories() -> None:
    floats = pa.array([2.0, None, float("nan"), -0.0, 7.0])
    assert distinct_categories(floats) == {2, 0, 7}
    known = CategoryMap.of("x", [0, 2])
    np.testing.assert_array_equal(known.encode(floats), np.array([1, np.nan, np.nan, 0, np.nan], np.float32))
    with pytest.raises(InvalidValueError, match=r"1\.5"):
        distinct_categories(pa.array([1.5]))


def test_an_integer_of_another_width_is_looked_up_by_value() -> None:
    known = CategoryMap.of("x", [-1, 5, 300])
    for kind in (pa.int8(), pa.uint64(), pa.int32()):
        assert known.encode(pa.array([5], kind)).tolist() == [1]
    assert np.isnan(known.encode(pa.array([2**64 - 1], pa.uint64()))[0])
    assert np.isnan(CategoryMap.of("x", [2**64 - 1]).encode(pa.array([-1], pa.int8()))[0])


@pytest.mark.parametrize("array", [pa.array([1]), pa.array([True]), pa.array([[1]])])
def test_values_of_another_kind_than_the_map_are_refused(array: pa.Array) -> None:
    with pytest.raises(UnsupportedTypeError, match="'city'"):
        CategoryMap.of("city", ["a"]).encode(array)


@pytest.mark.parametrize("values", [("b", "a"), ("a", "a"), (1, "a"), (0, True)])
def test_a_map_checks_its_own_values(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="'x'"):
        CategoryMap("x", values)


def test_text_that_is_no_map_is_refused() -> None:
    for text in ("[]", "{}", "nonsense"):
        with pytest.raises(ValueError):
            CategoryMap.from_json(text)


def test_features_become_one_matrix_with_contiguous_rows() -> None:
    records = pa.record_batch(
        {
            "label": [0.0, 1.0, 2.0],
            "x": pa.array([1.5, None, 3.5], pa.float32()),
            "n": pa.array([1, 2, None]),
            "c": ["b", "a", "z"],
        }
    )
    casts = plan_casts(records.schema, ["c", "x", "n"], ["c"])
    matrix = encode_features(records, casts, {"c": CategoryMap("c", ("a", "b"))})
    nan = np.nan
    np.testing.assert_array_equal(matrix, np.array([[1, 1.5, 1], [0, nan, 2], [nan, 3.5, nan]], np.float32))
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert encode_features(records.slice(1, 0), casts, {"c": CategoryMap("c", ("a",))}).shape == (0, 3)


@pytest.mark.parametrize("columns", [1, 64, 65, 200])
def test_a_wide_matrix_has_each_column_in_its_place(columns: int) -> None:
    records = pa.record_batch({f"f{j}": np.arange(3) + 10.0 * j for j in range(columns)})
    matrix = encode_features(records, plan_casts(records.schema, records.schema.names), {})
    np.testing.assert_array_equal(matrix, np.arange(3)[:, None] + 10 * np.arange(columns))


def test_numbers_do_not_import_pandas() -> None:
    code = (
        "import sys, pyarrow as pa\n"
        "from shardfit.casts import ColumnCast, cast_to_float32\n"
        "for valid in (None, pa.py_buffer(b'\\1')):\n"
        "    array = pa.Array.from_buffers(pa.float32(), 2, [valid, pa.py_buffer(bytes(8))])\n"
        "    print(cast_to_float32(array, ColumnCast('x', 'float', 'number')), 'pandas' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[0. 0.] False", "[ 0. nan] False"]

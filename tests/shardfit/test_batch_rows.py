"""How many rows are decoded at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.batch_rows import batch_rows, even_rows, most_even_rows


@given(st.integers(1, 10**7), st.integers(1, 10**5))
def test_a_fragment_is_divided_evenly_into_no_more_batches_than_it_must(rows: int, most: int) -> None:
    at_once = even_rows(rows, most)
    assert 1 <= at_once <= max(most + most // 4, 1)
    full, rest = divmod(rows, at_once)
    batches = full + bool(rest)
    assert batches <= -(-rows // most)
    # Batches differ by less than one row each, so that the last one has what the others have in excess.
    assert batches == 1 or at_once * batches - rows < batches


@pytest.mark.parametrize(("rows", "most", "at_once"), [(74_898, 36_157, 37_449), (20_000, 4_096, 5_000), (5, 100, 5)])
def test_no_small_rest_is_left(rows: int, most: int, at_once: int) -> None:
    assert even_rows(rows, most) == at_once


@given(st.integers(1, 300), st.integers(1, 100))
def test_the_most_rows_are_those_of_some_fragment_that_is_not_larger(rows: int, most: int) -> None:
    assert most_even_rows(rows, most) == max(even_rows(fewer, most) for fewer in range(1, rows + 1))


@given(st.integers(0, 10**6))
def test_a_batch_of_more_columns_has_no_more_rows(columns: int) -> None:
    assert 4_096 <= batch_rows(columns + 1) <= batch_rows(columns) <= 65_536

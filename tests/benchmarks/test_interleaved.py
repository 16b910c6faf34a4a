"""What costs come to that were measured in rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.interleaved import costs_of

COSTS = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=6)
FACTORS = st.lists(st.floats(0.5, 2.0), min_size=1, max_size=7)


@given(COSTS, FACTORS)
def test_what_makes_whole_rounds_slow_leaves_the_ratios_of_sizes_as_they_are(
    costs: list[float], factors: list[float]
) -> None:
    found = costs_of([[cost * factor for cost in costs] for factor in factors])
    assert np.array(found) / found[0] == pytest.approx(np.array(costs) / costs[0])
    # As slow as the median round was.
    assert found[0] == pytest.approx(costs[0] * np.median(factors))


def test_one_training_that_was_disturbed_changes_nothing() -> None:
    quiet = [1.0, 2.0, 4.0]
    disturbed = [1.0, 2.6, 4.0]
    found = costs_of([quiet, quiet, disturbed, quiet, quiet])
    assert found == pytest.approx(quiet)

"""What the benchmark of linear cost says of its measurements."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.cost_picture import draw
from benchmarks.linear_cost import SERIES, Records, points_of, render
from benchmarks.straight_line import Line


def test_a_line_has_a_fixed_cost_a_slope_and_neighbours() -> None:
    line = Line.through([(1, 12.0), (2, 14.0), (4, 18.0)])
    assert (line.fixed, line.slope, line.r_squared) == (pytest.approx(10.0), pytest.approx(2.0), pytest.approx(1.0))
    assert line.slopes == pytest.approx((2.0, 2.0))
    assert line.worst_neighbours == pytest.approx(0.0)
    assert Line.through([(1, 1.0), (2, 2.0), (3, 3.5)]).worst_neighbours == pytest.approx(0.5)
    assert Line.through([(1, 1.0), (2, 2.0)]).worst_neighbours is None


def test_the_table_and_the_picture_show_every_series() -> None:
    def cost(rows: int, columns: int) -> dict[str, Any]:
        seconds = 3 + rows * columns / 1e7
        trainings = [{"cpu_seconds": slow * seconds, "peak_bytes": 2**28} for slow in (1, 1, 2.5)]
        return {"rows": rows, "columns": columns, "trainings": trainings}

    records: Records = {"xgboost": {name: [cost(*size) for size in sizes] for name, sizes in SERIES.items()}}
    assert [size for size, _ in points_of(records, "xgboost", "columns", "cpu_seconds")] == [10, 100, 1_000]
    table = render(records)
    assert table.count("###") == 4
    assert "| 1,000,000 | 3 | 8.70 | 5.80 - 14.50 | 4.20 |" in table
    assert (
        "R^2 1.0000, fixed cost 4.50 s of CPU, 4.2 s of CPU a million rows; neighbouring slopes differ by 0%" in table
    )
    points = points_of(records, "xgboost", "rows", "cpu_seconds")
    picture = ElementTree.fromstring(draw({("xgboost", "rows", "cpu_seconds"): points}))
    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == 5

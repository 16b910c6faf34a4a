"""What training costs as rows and columns grow: time and memory less what they are at no size, and their slopes.

python -m benchmarks.linear_cost                              every size of both series
python -m benchmarks.linear_cost --only rows-1 rows-2         some; the others keep what was measured before
python -m benchmarks.linear_cost --only                       none; writes the table and the picture anew
python -m benchmarks.linear_cost --scale 0.01 --output FILE   a quick look with a hundredth of the rows

Each training uses one CPU. The fixed cost is where the straight line through a series meets size 0; the slope between
two neighbours is what a further row, or value, costs there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.case_runs import ROOT, read_results, run_case
from benchmarks.cost_picture import draw
from benchmarks.memory_shapes import Shape, make_data
from benchmarks.straight_line import Line

RESULTS = ROOT / "benchmarks" / "results" / "linear-cost.json"
TRAINERS = ("xgboost", "lightgbm")
WITHIN = 0.15


@dataclass(frozen=True)
class Size:
    """One size of a series.

    Args:
        series: `rows` or `columns`.
        rows: Rows of the table.
        columns: Features of the table.
    """

    series: str
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """What grows along the series."""
        return self.rows if self.series == "rows" else self.columns


SIZES = {
    **{f"rows-{m}": Size("rows", m * 1_000_000, 28) for m in (1, 2, 4, 8, 16)},
    **{f"columns-{n}": Size("columns", 500_000, n) for n in (10, 100, 1_000)},
}
MEASURES = {"seconds": ("s", 1.0), "cpu_seconds": ("s of CPU", 1.0), "peak_bytes": ("MiB", 2.0**20)}


def measure(size: Size, trainer: str, data: Path, scale: float) -> dict[str, Any]:
    """Return what a training took, in a process of its own: seconds of the clock and of CPUs, peak bytes.

    Args:
        size: Of the table.
        trainer: `xgboost` or `lightgbm`.
        data: Folder of the generated tables.
        scale: What rows are multiplied by.

    Raises:
        RuntimeError: It failed.
    """
    rows = max(1, round(size.rows * scale))
    shape = [trainer, str(rows), str(size.columns), "--data", str(data)]
    make_data(data, rows, Shape(trainer, rows, size.columns))
    found = run_case("benchmarks.linear_cost_run", shape)
    return {"rows": rows, "columns": size.columns, **{name: found[name] for name in MEASURES}}


def least_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the least of each measure of two trainings: what others do on the machine only adds to it."""
    return {name: min(one.get(name, value), value) for name, value in other.items()}


def points_of(records: Mapping[str, Any], trainer: str, series: str, measure: str) -> list[tuple[float, float]]:
    """Return (size, cost) of what was measured of a series, the smallest first.

    Args:
        records: As they were written down.
        trainer: `xgboost` or `lightgbm`.
        series: `rows` or `columns`.
        measure: One of `MEASURES`.
    """
    found = records.get(trainer, {})
    names = [name for name, size in SIZES.items() if size.series == series and name in found]
    return sorted((float(found[name][series]), float(found[name][measure])) for name in names if measure in found[name])


def render(records: Mapping[str, Any]) -> str:
    """Return a table for each series of each trainer, as Markdown, with what its straight line comes to."""
    blocks = []
    for trainer in TRAINERS:
        for series in ("rows", "columns"):
            for name, (unit, divisor) in MEASURES.items():
                points = [(x, y / divisor) for x, y in points_of(records, trainer, series, name)]
                if len(points) > 1:
                    blocks.append(_block(f"{trainer}: {unit} by {series}", series, unit, points))
    return "\n\n".join(blocks) + "\n"


def _block(title: str, series: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    line = Line.through(points)
    per, word = (1e6, "million rows") if series == "rows" else (1.0, "column")
    lines = [
        f"### {title}",
        "",
        f"| {series} | {unit} | less the fixed cost | slope from the one before |",
        "|---|---|---|---|",
    ]
    slopes = [None, *line.slopes]
    for (x, y), slope in zip(points, slopes, strict=True):
        shown = "" if slope is None else f"{slope * per:,.4g}"
        lines.append(f"| {x:,.0f} | {y:,.2f} | {y - line.fixed:,.2f} | {shown} |")
    verdict = f"R^2 {line.r_squared:.4f}, fixed cost {line.fixed:,.2f} {unit}, {line.slope * per:,.4g} {unit} a {word}"
    worst = line.worst_neighbours
    if worst is not None:
        kept = "within" if worst <= WITHIN else "not within"
        verdict += f"; neighbouring slopes differ by {worst:.0%} at most, {kept} {WITHIN:.0%}"
    return "\n".join([*lines, "", f"{verdict}."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results, the table and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linear_cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=SIZES, help="sizes to measure (all)")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS, help="(both)")
    parser.add_argument("--scale", type=float, default=1.0, help="what rows are multiplied by (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="trainings of each, of which the least counts")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench" / "shapes", help="folder of the generated tables")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a JSON file; table and picture lie beside it")
    options = parser.parse_args(arguments)
    records = read_results(options.output)
    names = SIZES if options.only is None else options.only
    # All sizes, and then all of them again, so that minutes in which the machine is slow do not meet one size alone.
    for repeat, trainer, name in product(range(options.repeats), options.trainers, names):
        began = time.perf_counter()
        found = measure(SIZES[name], trainer, options.data, options.scale)
        known = records.setdefault(trainer, {})
        known[name] = least_of(known[name], found) if repeat else found
        print(f"{trainer} {name}: {found}, {time.perf_counter() - began:.0f} s in all", flush=True)
        # After each, so that what was measured stays when a later one is interrupted.
        options.output.write_text(json.dumps(records, indent=1) + "\n")
    table = render(records)
    options.output.with_suffix(".md").write_text(table)
    series = {
        (trainer, kind, measure): points_of(records, trainer, kind, measure)
        for trainer in TRAINERS
        for kind in ("rows", "columns")
        for measure in MEASURES
    }
    options.output.with_suffix(".svg").write_text(draw({key: points for key, points in series.items() if points}))
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

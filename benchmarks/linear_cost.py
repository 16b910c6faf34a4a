"""What training costs as rows and columns grow: time and memory less what they are at no size, and their slopes.

python -m benchmarks.linear_cost                              both series, each size trained three times or more
python -m benchmarks.linear_cost --series rows --times 5      one; the other keeps what was measured before
python -m benchmarks.linear_cost --series                     none; writes the table and the picture anew
python -m benchmarks.linear_cost --scale 0.01 --output FILE   a quick look with a hundredth of the rows

Each training uses one CPU. Those of all sizes of a series take turns, and each is begun anew when it ends, until the
largest has been trained often enough; what is shown is the mean of CPU seconds, and of peaks of memory. The fixed cost
is where the straight line through a series meets size 0; the slope between two neighbours is what a further row, or
column, costs.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.case_runs import ROOT, case_command, read_results
from benchmarks.cost_picture import draw
from benchmarks.memory_shapes import Shape, make_data
from benchmarks.side_by_side import run_side_by_side
from benchmarks.straight_line import Line

RESULTS = ROOT / "benchmarks" / "results" / "linear-cost.json"
TRAINERS = ("xgboost", "lightgbm")
WITHIN = 0.15


# Series -> (rows, columns) of each size, the smallest first.
SERIES: dict[str, tuple[tuple[int, int], ...]] = {
    "rows": tuple((millions * 1_000_000, 28) for millions in (1, 2, 4, 8, 16)),
    "columns": tuple((500_000, columns) for columns in (10, 100, 1_000)),
}
# Trainer -> series -> sizes, the smallest first, each with `rows`, `columns` and what each training took.
Records = dict[str, dict[str, list[dict[str, Any]]]]
MEASURES = {"cpu_seconds": ("s of CPU", 1.0), "peak_bytes": ("MiB", 2.0**20)}


def measure(series: str, trainer: str, data: Path, *, scale: float, times: int) -> list[dict[str, Any]]:
    """Return what trainings of every size of a series took, the smallest first.

    Args:
        series: `rows` or `columns`.
        trainer: `xgboost` or `lightgbm`.
        data: Folder of the generated tables.
        scale: What rows are multiplied by.
        times: How often each size is trained at least.

    Raises:
        RuntimeError: A training failed.
        subprocess.TimeoutExpired: A training took longer than 350 s.
    """
    sizes = [(max(1, round(rows * scale)), columns) for rows, columns in SERIES[series]]
    commands = {}
    for rows, columns in sizes:
        make_data(data, rows, Shape(trainer, rows, columns))
        arguments = [trainer, str(rows), str(columns), "--data", str(data)]
        commands[rows, columns] = case_command("benchmarks.linear_cost_run", arguments)
    found = run_side_by_side(commands, times, lambda size, record: print(trainer, size, record, flush=True))
    return [
        {
            "rows": rows,
            "columns": columns,
            "trainings": [{name: one[name] for name in MEASURES} for one in found[rows, columns]],
        }
        for rows, columns in sizes
    ]


def points_of(records: Records, trainer: str, series: str, measure: str) -> list[tuple[float, float]]:
    """Return (size, cost) of what was measured of a series, the smallest first.

    Args:
        records: As they were written down.
        trainer: `xgboost` or `lightgbm`.
        series: `rows` or `columns`.
        measure: One of `MEASURES`.
    """
    sizes = records.get(trainer, {}).get(series, [])
    return [(float(size[series]), fmean(one[measure] for one in size["trainings"])) for size in sizes]


def render(records: Records) -> str:
    """Return a table for each series of each trainer, as Markdown, with what its straight line comes to."""
    blocks = []
    for trainer in TRAINERS:
        for series in SERIES:
            sizes = records.get(trainer, {}).get(series, [])
            for name, (unit, divisor) in MEASURES.items():
                points = [(x, y / divisor) for x, y in points_of(records, trainer, series, name)]
                if points:
                    seen = [[one[name] / divisor for one in size["trainings"]] for size in sizes]
                    blocks.append(_block(f"{trainer}: {unit} by {series}", series, unit, points, seen))
    return "\n\n".join(blocks) + "\n"


def _block(
    title: str, series: str, unit: str, points: Sequence[tuple[float, float]], seen: Sequence[Sequence[float]]
) -> str:
    line = Line.through(points)
    per, word = (1e6, "million rows") if series == "rows" else (1.0, "column")
    lines = [
        f"### {title}",
        "",
        f"| {series} | trainings | {unit} | from - to | less the fixed cost | slope from the one before |",
        "|---|---|---|---|---|---|",
    ]
    for (x, y), costs, slope in zip(points, seen, [None, *line.slopes], strict=True):
        shown = "" if slope is None else f"{slope * per:,.4g}"
        spread = f"{min(costs):,.2f} - {max(costs):,.2f}"
        lines.append(f"| {x:,.0f} | {len(costs)} | {y:,.2f} | {spread} | {y - line.fixed:,.2f} | {shown} |")
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
    parser.add_argument("--series", nargs="*", choices=SERIES, default=tuple(SERIES), help="to measure (both)")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS, help="(both)")
    parser.add_argument("--times", type=int, default=3, help="how often each size is trained, or more (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="what rows are multiplied by (%(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench" / "shapes", help="folder of the generated tables")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a JSON file; table and picture lie beside it")
    options = parser.parse_args(arguments)
    # Trainings that wait for their turn would wait forever.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    records: Records = read_results(options.output)
    for series in options.series:
        for trainer in options.trainers:
            found = measure(series, trainer, options.data, scale=options.scale, times=options.times)
            records.setdefault(trainer, {})[series] = found
            # After each, so that what was measured stays when a later one is interrupted.
            options.output.write_text(json.dumps(records, indent=1) + "\n")
    table = render(records)
    options.output.with_suffix(".md").write_text(table)
    series = {
        (trainer, kind, measure): points_of(records, trainer, kind, measure)
        for trainer in TRAINERS
        for kind in SERIES
        for measure in MEASURES
    }
    options.output.with_suffix(".svg").write_text(draw({key: points for key, points in series.items() if points}))
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables that are awkward for their shape, each trained in a process of its own; writes the table of docs/memory.md.

python -m benchmarks.shapes                    every case
python -m benchmarks.shapes --only files       some; the others keep what was measured before
python -m benchmarks.shapes --only             none; writes the table anew
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case_runs import ROOT, CaseTable, run_case
from benchmarks.shape_cases import CASES, make_table

RESULTS = ROOT / "benchmarks" / "results" / "shapes.json"
PAGE = ROOT / "docs" / "memory.md"
MARKERS = ("<!-- measured: python -m benchmarks.shapes -->", "<!-- end of shapes -->")


def measure(name: str, data: Path) -> dict[str, Any]:
    """Make the table of a case, train on it in a process of its own, and return what that took.

    Args:
        name: Of the case.
        data: Folder of the generated tables.
    """
    make_table(CASES[name], data)
    return run_case("benchmarks.shape_cases", [name, "--data", str(data)])


def table_of(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown.

    Args:
        records: Name of the case -> what it took.
    """
    lines = ["| what | trainer | plan s | all s | planned MiB | measured MiB | also |", "|---|---|---|---|---|---|---|"]
    for name, record in records.items():
        case = CASES[name]
        planned, measured = (record[kind] / 2**20 for kind in ("planned_bytes", "measured_bytes"))
        seconds = f"{record['phases']['plan']:,.1f} | {record['seconds']:,.0f}"
        sizes = f"{planned:,.0f} | {measured:,.0f}"
        lines.append(f"| {case.title} | {case.trainer} | {seconds} | {sizes} | {_also(record)} |")
    return "\n".join(lines)


def _also(record: Mapping[str, Any]) -> str:
    found = [f"{record['open_files']} more files open afterwards"]
    if record["worker_rows"]:
        found.append(f"{min(record['worker_rows']):,} to {max(record['worker_rows']):,} rows for each of 8 workers")
    if record["after_fits"]:
        fifth, last = (size / 2**20 for size in record["after_fits"])
        found.append(f"{fifth:,.0f} MiB after fit 5, {last:,.0f} MiB after fit 20")
    return "; ".join(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and the table."""
    CaseTable(CASES, measure, table_of, RESULTS, PAGE, MARKERS).run("benchmarks.shapes", __doc__, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())

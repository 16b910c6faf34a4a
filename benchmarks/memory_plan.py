"""Planned peak memory beside what was measured, a process for each shape; writes the table of docs/memory.md.

python -m benchmarks.memory_plan                       every shape
python -m benchmarks.memory_plan --only xgboost-1m     some; the others keep what was measured before
python -m benchmarks.memory_plan --only                none; writes the table anew
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case_runs import ROOT, CaseTable, run_case
from benchmarks.memory_shapes import SHAPES, Shape

RESULTS = ROOT / "benchmarks" / "results" / "memory-plan.json"
PAGE = ROOT / "docs" / "memory.md"
MARKERS = ("<!-- measured: python -m benchmarks.memory_plan -->", "<!-- end of measured -->")


def measure(name: str, data: Path) -> dict[str, Any]:
    """Train one shape in a process of its own and return what was planned and measured.

    Args:
        name: Of the shape.
        data: Folder of generated tables.
    """
    shape = [name, "--data", str(data)]
    # Making the table takes memory of its own, which must not be counted.
    run_case("benchmarks.memory_shapes", [*shape, "--only-data"])
    found = run_case("benchmarks.memory_shapes", shape)
    return {"planned": found["planned"], "measured": found["measured"]}


def ratio(record: Mapping[str, Any]) -> float:
    """Return planned peak by measured peak."""
    return float(max(record["planned"].values()) / max(record["measured"].values()))


def table_of(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table and what it comes to, as Markdown.

    Args:
        records: Name of the shape -> what was planned and measured.
    """
    lines = ["| trainer | rows x columns | values | workers | planned MiB | measured MiB | planned / measured |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, record in records.items():
        planned, measured = (max(record[kind].values()) / 2**20 for kind in ("planned", "measured"))
        lines.append(f"| {_row(SHAPES[name])} | {planned:,.0f} | {measured:,.0f} | {ratio(record):.2f} |")
    ratios = [ratio(record) for record in records.values()]
    close = sum(abs(value - 1) <= 0.25 for value in ratios)
    lines += ["", f"{len(ratios)} shapes; the least planned / measured is {min(ratios):.2f}, {close} are within 25 %."]
    return "\n".join(lines)


def _row(shape: Shape) -> str:
    values = {"missing": "float32, a tenth missing", "text": "float32, a quarter text"}.get(shape.kind, shape.kind)
    values += f", {shape.classes} classes" if shape.classes > 2 else ""
    values += f", {shape.eval_rows:,} rows to evaluate" if shape.eval_rows else ""
    values += ", on disk" if shape.storage == "disk" else ""
    return f"{shape.trainer} | {shape.rows:,} x {shape.columns:,} | {values} | {shape.workers}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results and the table; 1 when a shape was under-planned by more than a tenth."""
    table = CaseTable(SHAPES, measure, table_of, RESULTS, PAGE, MARKERS)
    records = table.run("benchmarks.memory_plan", __doc__, arguments)
    return int(min(map(ratio, records.values())) < 0.9)


if __name__ == "__main__":
    sys.exit(main())

"""Tables that are awkward for their shape, each trained in a process of its own; writes the table of docs/memory.md.

python -m benchmarks.shapes                    every case
python -m benchmarks.shapes --only files       some; the others keep what was measured before
python -m benchmarks.shapes --only             none; writes the table anew
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import replace_between
from benchmarks.shape_cases import CASES, make_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "shapes.json"
PAGE = ROOT / "docs" / "memory.md"
MARKERS = ("<!-- measured: python -m benchmarks.shapes -->", "<!-- end of shapes -->")
LIMIT_S = 350.0


def measure(name: str, data: Path) -> dict[str, Any]:
    """Make the table of a case, train on it in a process of its own, and return what that took.

    Args:
        name: Of the case.
        data: Folder of the generated tables.

    Raises:
        RuntimeError: It failed.
    """
    make_table(CASES[name], data)
    command = [sys.executable, "-m", "benchmarks.shape_cases", name, "--data", str(data)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"{name} exited with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=CASES, help="cases to measure (all)")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench" / "shapes", help="folder of the generated tables")
    options = parser.parse_args(arguments)
    records: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in CASES if options.only is None else options.only:
        records[name] = measure(name, options.data)
        print(f"{name}: {records[name]}", flush=True)
        # After each, so that what was measured stays when a later one is interrupted.
        RESULTS.write_text(json.dumps({key: records[key] for key in CASES if key in records}, indent=1) + "\n")
    table = table_of({key: records[key] for key in CASES if key in records})
    PAGE.write_text(replace_between(PAGE.read_text(), *MARKERS, table))
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

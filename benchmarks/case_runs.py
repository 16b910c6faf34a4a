"""What benchmarks of many cases share: a process for each case, results kept in JSON, a table written into a page."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import replace_between

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 350.0

Record = dict[str, Any]


def run_case(module: str, arguments: Sequence[str]) -> Record:
    """Run a case in a process of its own and return what it printed as its last line, which is JSON.

    Args:
        module: What `python -m` runs.
        arguments: Its command line.

    Raises:
        RuntimeError: It failed.
        subprocess.TimeoutExpired: It took longer than 350 s.
    """
    command = case_command(module, arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    return record_of(command, done.returncode, done.stdout, done.stderr)


def case_command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of `python -m module arguments`."""
    return [sys.executable, "-m", module, *arguments]


def record_of(command: Sequence[str], status: int, printed: str, errors: str) -> Record:
    """Return what a program printed as its last line, which is JSON.

    Args:
        command: Its command line.
        status: With which it exited.
        printed: What it printed.
        errors: What it printed to standard error.

    Raises:
        RuntimeError: It failed.
    """
    if status:
        raise RuntimeError(f"{' '.join(command[1:])} exited with {status}: {errors[-2000:]}")
    found: Record = json.loads(printed.splitlines()[-1])
    return found


def read_results(path: Path) -> dict[str, Any]:
    """Return what was measured before; nothing where nothing was."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


@dataclass(frozen=True)
class CaseTable:
    """Cases, where their results lie, and the table that is made of them.

    Args:
        cases: Their names, in the order of the table.
        measure: Name of a case, folder of generated tables -> what it took.
        render: Name of each case that was measured -> what it took, to Markdown.
        results: A JSON file.
        page: Where the table stands.
        markers: What stands before and after it.
    """

    cases: Iterable[str]
    measure: Callable[[str, Path], Record]
    render: Callable[[Mapping[str, Record]], str]
    results: Path
    page: Path
    markers: tuple[str, str]

    def run(self, program: str, description: str | None, arguments: Sequence[str] | None) -> dict[str, Record]:
        """Measure the cases that the command line names, write results and table, and return all results.

        Args:
            program: As `python -m` calls it.
            description: For `--help`.
            arguments: The command line; None for this process's.
        """
        parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
        parser.formatter_class = argparse.RawTextHelpFormatter
        parser.add_argument("--only", nargs="*", choices=list(self.cases), help="cases to measure (all)")
        parser.add_argument("--data", type=Path, default=ROOT / ".bench" / "shapes", help="folder of generated tables")
        options = parser.parse_args(arguments)
        records = read_results(self.results)
        for name in self.cases if options.only is None else options.only:
            records[name] = self.measure(name, options.data)
            print(f"{name}: {records[name]}", flush=True)
            # After each, so that what was measured stays when a later one is interrupted.
            self.results.write_text(json.dumps(self._known(records), indent=1) + "\n")
        records = self._known(records)
        table = self.render(records)
        self.page.write_text(replace_between(self.page.read_text(), *self.markers, table))
        print(table)
        return records

    def _known(self, records: Mapping[str, Record]) -> dict[str, Record]:
        return {name: records[name] for name in self.cases if name in records}

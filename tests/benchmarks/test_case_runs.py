"""What benchmarks of many cases share: what is measured is kept, and the table says what is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.case_runs import CaseTable, read_results, run_case

MARKERS = ("<!-- begin -->", "<!-- end -->")


def table_in(folder: Path) -> CaseTable:
    (folder / "page.md").write_text("\n".join(["before", *MARKERS, "after"]) + "\n")

    def measure(name: str, data: Path) -> dict[str, object]:
        if name == "failing":
            raise RuntimeError("it failed")
        return {"length": len(name)}

    return CaseTable(
        ("one", "three", "failing"),
        measure,
        lambda records: "\n".join(f"| {name} | {record['length']} |" for name, record in records.items()),
        folder / "results.json",
        folder / "page.md",
        MARKERS,
    )


def test_what_was_measured_before_stays_and_stands_in_order(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    table.run("x", None, ["--only", "three"])
    (tmp_path / "results.json").write_text(json.dumps({"three": {"length": 50}, "no longer": {"length": 1}}))
    assert table.run("x", None, ["--only", "one"]) == {"one": {"length": 3}, "three": {"length": 50}}
    assert "| one | 3 |\n| three | 50 |\n<!-- end -->" in (tmp_path / "page.md").read_text()


def test_what_was_measured_is_kept_when_a_later_case_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="it failed"):
        table_in(tmp_path).run("x", None, [])
    assert read_results(tmp_path / "results.json") == {"one": {"length": 3}, "three": {"length": 5}}


def test_a_case_that_fails_says_what_it_wrote() -> None:
    with pytest.raises(RuntimeError, match="shape_cases no-such --data x exited with 2: usage"):
        run_case("benchmarks.shape_cases", ["no-such", "--data", "x"])

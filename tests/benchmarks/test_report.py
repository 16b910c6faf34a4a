from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.make_table import FILES, make_table
from benchmarks.report import BEGIN, END, Measurement, render, summarize, update_readme
from benchmarks.task import Task, read_report

FACTS = {"rows": 1000, "rounds": 3, "repeats": 3, "cores": 2, "versions": {"xgboost": "3.2.0"}}


def run(name: str, wall: float, memory: int, failure: str = "") -> Measurement:
    return Measurement(name, wall, memory, {} if failure else {"data": wall / 2, "train": wall / 4}, failure, 0.9)


def test_medians_are_taken_over_the_runs_that_did_not_fail() -> None:
    medians = summarize([run("a", 3, 30), run("a", 99, 1, "hung"), run("a", 1, 10), run("a", 2, 50)])
    assert (medians["a"].wall, medians["a"].peak_bytes, medians["a"].phases["data"]) == (2, 30, 1.0)


def test_a_contestant_that_only_failed_is_shown_as_failed() -> None:
    table = render(FACTS, summarize([run("ray_train", 600, 1, "hung")]))
    assert "| Ray Train XGBoostTrainer, 2 workers | failed |" in table


def test_ratios_compare_with_the_peer_of_the_same_run() -> None:
    table = render(FACTS, summarize([run("shardfit_inline", 3, 200), run("plain_xgboost", 4, 800)]))
    assert "takes 0.75 x the wall time and 0.25 x the memory of plain xgboost" in table


def test_a_measurement_becomes_json_also_when_it_failed() -> None:
    assert json.loads(json.dumps(run("a", 1, 1, "hung").to_dict(), allow_nan=False))["auc"] is None


def test_the_readme_keeps_everything_outside_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_readme(readme, "new\n")
    assert readme.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_a_readme_without_markers_is_refused_and_kept(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(ValueError, match="markers"):
        update_readme(readme, "new\n")
    assert readme.read_text() == "nothing here\n"


def test_a_task_survives_the_command_line() -> None:
    task = Task(Path("train"), Path("model.ubj"), Path("scratch"), 30, 2)
    assert Task.from_command_line(task.to_command_line()) == task


def test_the_report_is_found_among_other_output() -> None:
    assert read_report('noise\n{"phases": {"data": 1.5}}\nmore noise\n') == {"data": 1.5}
    with pytest.raises(ValueError, match="no report"):
        read_report("noise\n")


def test_the_table_has_as_many_rows_as_asked_for_in_eight_files_and_the_same_bytes_again(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folders = [make_table(tmp_path / name, 10_003)[0] for name in ("once", "again")]
    once, again = ([path.read_bytes() for path in sorted(folder.glob("*.parquet"))] for folder in folders)
    assert once == again
    assert len(once) == FILES
    assert pq.read_table(folders[0]).num_rows == 10_003

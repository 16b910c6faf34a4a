"""Commands that are run side by side on one CPU."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.side_by_side import on_one_cpu, run_side_by_side

# Prints which CPUs it may use and where temporary files go.
SHORT = "import json, os; print(json.dumps({'cpus': len(os.sched_getaffinity(0)), 'folder': os.environ['TMPDIR']}))"
LONG = f"import time; time.sleep(1.5); {SHORT}"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_each_command_runs_on_one_cpu_until_the_longest_has_ended_often_enough() -> None:
    allowed = os.sched_getaffinity(0)
    seen: list[str] = []
    found = run_side_by_side({"short": python(SHORT), "long": python(LONG)}, 2, lambda key, _: seen.append(key))
    assert len(found["long"]) == 2
    assert len(found["short"]) > 2
    assert {one["cpus"] for one in found["short"] + found["long"]} == {1}
    assert sorted(seen) == ["long"] * 2 + ["short"] * len(found["short"])
    assert os.sched_getaffinity(0) == allowed
    assert not Path(found["long"][0]["folder"]).exists()


def test_a_command_that_fails_ends_the_others(tmp_path: Path) -> None:
    waits = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    fails = (
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.05)\nraise OSError('no')"
    )
    with pytest.raises(RuntimeError, match="OSError: no"):
        run_side_by_side({"waits": python(waits), "fails": python(fails)}, 1)
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_cpus_are_given_back_after_an_error() -> None:
    allowed = os.sched_getaffinity(0)
    with pytest.raises(KeyError), on_one_cpu():
        raise KeyError
    assert os.sched_getaffinity(0) == allowed

"""Commands that take turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.side_by_side import TURN_S, run_side_by_side

SHORT = "import json, os; print(json.dumps({'folder': os.environ['TMPDIR']}))"
# Counts CPU seconds until it has used some.
WORKING = "import json, time\nbegun = time.monotonic()\nwhile time.process_time() < {0}: pass\n"
WORK = WORKING + "print(json.dumps({{'worked': time.process_time(), 'took': time.monotonic() - begun}}))"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_each_command_runs_until_the_longest_has_ended_often_enough() -> None:
    seen: list[str] = []
    found = run_side_by_side(
        {"short": python(SHORT), "long": python(WORK.format(4 * TURN_S))}, 2, lambda key, _: seen.append(key)
    )
    assert len(found["long"]) == 2
    # One of them in each round of turns; the long one needs several.
    assert len(found["short"]) > 4
    assert sorted(seen) == ["long"] * 2 + ["short"] * len(found["short"])
    assert not Path(found["short"][0]["folder"]).exists()


def test_a_command_stands_still_while_others_have_their_turn() -> None:
    found = run_side_by_side({name: python(WORK.format(2 * TURN_S)) for name in "ab"}, 1)
    first = found["a"][0]
    # Without turns it would have taken as long as it worked, on a machine with a CPU for each.
    assert first["took"] >= first["worked"] + TURN_S / 2


def test_a_command_that_fails_ends_the_others(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    started = tmp_path / "started"
    waits = f"import os, pathlib, time; pathlib.Path({str(written)!r}).write_text(str(os.getpid()))\n"
    waits += f"os.mkdir({str(started)!r}); time.sleep(60)"
    fails = f"import os, time\nwhile not os.path.exists({str(started)!r}): time.sleep(0.05)\nraise OSError('no')"
    with pytest.raises(RuntimeError, match="OSError: no"):
        run_side_by_side({"waits": python(waits), "fails": python(fails)}, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(written.read_text()), 0)


def test_a_command_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.side_by_side.LIMIT_S", TURN_S)
    with pytest.raises(subprocess.TimeoutExpired):
        run_side_by_side({"long": python("import time; time.sleep(60)")}, 1)

"""The example in one file runs, and what it registers keeps its promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from examples.source_and_strategy import Waves, deal
from shardfit.shard_plan import ShardingConstraints, World
from shardfit.testing.source_kit import check_source

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "source_and_strategy.py"


def test_the_example_is_short_and_trains_on_its_own_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == "5000 rows\n"


def test_its_source_and_its_strategy_keep_their_promises() -> None:
    x = np.arange(3000) / 100
    check_source(Waves(3), pa.table({"x": x, "y": np.sin(x)}))
    plan = deal(Waves(5).fragments(), World(2), 0, ShardingConstraints())
    assert plan.worker_rows.tolist() == [3000, 2000]

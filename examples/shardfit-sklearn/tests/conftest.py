"""Keeps what tests publish away from the user's own stages."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def stage_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test publish into a folder of its own."""
    monkeypatch.setenv("SHARDFIT_STAGE_ROOT", str(tmp_path / "stages"))

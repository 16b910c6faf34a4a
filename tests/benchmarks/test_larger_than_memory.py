"""What the benchmark under a limit says of those that trained and those that died."""

from __future__ import annotations

from typing import Any

from benchmarks.larger_than_memory import ROW_BYTES, render


def part(status: int | str, seconds: float, killed: int = 0) -> dict[str, Any]:
    return {"status": status, "seconds": seconds, "killed": killed, "peak_bytes": 2**30, "output": ""}


def test_the_table_says_who_trained_who_died_and_how_much_slower_the_limit_is() -> None:
    parts = {"unlimited": part(0, 100.0), "shardfit": part(0, 250.0), "plain_xgboost": part(-9, 3.4, 1)}
    parts["ray_train"] = part(1, 2.0)
    rows = 8 * 2**30 // ROW_BYTES
    table = render({"rows": rows, "decoded_bytes": rows * ROW_BYTES, "limit": 2**30, "rounds": 10, "parts": parts})
    assert "| **shardfit** | trained | 250 | 0 | 1,024 |" in table
    assert "| pandas and plain XGBoost | killed (-9) | 3 | 1 | 1,024 |" in table
    # What ended by itself was not killed by the limit.
    assert "| Ray Train, 2 workers | failed (1) | 2 | 0 |" in table
    assert "8.0 x the limit of 1,024 MiB once decoded; 10 rounds." in table
    assert "Under the limit shardfit takes 2.50 x the time" in table

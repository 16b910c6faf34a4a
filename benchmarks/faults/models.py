"""What a run of the campaign ends with, as text, and whether it is what an undisturbed run ends with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from shardfit import TrainResult

# Sums over ranks are made in another order at another number of ranks, in float32, sixty times one after another.
WEIGHT_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5


def model_of(result: TrainResult) -> str:
    """Return everything that a booster is saved as, in hexadecimal; of a network, its weights and more, as JSON."""
    if result.trainer.deals_rows:
        from benchmarks.faults.loop import network_of

        return json.dumps(network_of(result))
    saved = sorted(result.trainer.save(result.model).items())
    return b"".join(content if isinstance(content, bytes) else content.read_bytes() for _, content in saved).hex()


def same_model(found: str, expected: str, rows: list[list[int]]) -> bool:
    """Return whether two models are the same: byte for byte, or of networks within the error of float32.

    Args:
        found: What `model_of` gave; empty where there is no model.
        expected: Of the undisturbed run.
        rows: What `rows_of_epochs` gave: of a network, each row must have been seen once in each epoch.
    """
    if not found.startswith("{") or not expected.startswith("{"):
        return bool(found) and found == expected
    one, other = json.loads(found), json.loads(expected)
    told = all(each["covered"] and each["rows"] == rows and each["steps"] == other["steps"] for each in (one, other))
    return told and bool(abs(one["loss"] - other["loss"]) <= LOSS_TOLERANCE) and _same_weights(one, other)


def _same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one["weights"].keys() != other["weights"].keys():
        return False
    return all(
        np.allclose(values, other["weights"][name], rtol=0, atol=WEIGHT_TOLERANCE)
        for name, values in one["weights"].items()
    )

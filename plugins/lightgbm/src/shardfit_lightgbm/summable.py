"""Gradients on a grid: LightGBM's float64 sums of them are exact, and so the same in any order, on any worker.

LightGBM adds float32 gradients up in float64, row by row, then leaf by leaf and worker by worker. A sum of floats
depends on the order of its terms as soon as one addition rounds. None does where all terms are multiples of one power
of two, the step, and no sum exceeds 2**53 of them:

    step = 2**(E + B - 53),  where every |value| <= 2**E, and there are fewer than 2**B rows.

Then every histogram, every difference of two histograms and every sum of a leaf is a whole number of steps below 2**53.
E comes from the largest value of all workers and B from the rows of all of them, so the step is the same however rows
are divided. A float32 of 2**24 steps or more is a multiple of the step as it is: with a million rows, only values
below 1/256 of the largest one are rounded at all, and by at most half a step, 2**-33 of the largest one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

_FLOAT64_BITS = 53
# Four bits at least leave room for the number that rounds by being added.
_LEAST_BITS = 4


def step_of(largest: float, rows: int) -> float:
    """Return the distance of two grid points, a power of two, or 0.0 where every value is 0.

    Args:
        largest: Of the absolute values of all workers. Where it is infinite or no number, sums have no exact value,
            and the step is that of the largest float32.
        rows: Of all workers; each adds one value to a sum.
    """
    if largest == 0.0:
        return 0.0
    if not math.isfinite(largest):
        largest = float(np.finfo(np.float32).max)
    return math.ldexp(1.0, math.frexp(largest)[1] + _bits(rows) - _FLOAT64_BITS)


def round_to_step(values: npt.NDArray[Any], step: float, out: Float32Array) -> None:
    """Write the nearest multiples of a step that float32 has; all bits of a float32 are multiples of some step.

    Args:
        values: float32 or float64, any shape; at most `largest` of the call that gave the step.
        step: As `step_of` returns it; 0.0 changes nothing.
        out: float32, same shape; may be `values`.
    """
    if step == 0.0:
        out[...] = values
        return
    # Beside this number, neighbouring float64 lie one step apart.
    rounder = 1.5 * step * 2.0 ** (_FLOAT64_BITS - 1)
    rounded = np.add(values, rounder, dtype=np.float64)
    out[...] = np.subtract(rounded, rounder, out=rounded)


def largest_of(values: Float32Array) -> float:
    """Return the largest absolute value, 0.0 where there is none, and NaN where one is NaN."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def _bits(rows: int) -> int:
    return max(rows.bit_length(), _LEAST_BITS)

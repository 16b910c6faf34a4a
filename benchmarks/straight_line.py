"""A straight line through measurements, and how straight they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Line:
    """The line of least squares through (size, cost), and what it leaves.

    Args:
        fixed: Cost at size 0.
        slope: Cost of one more.
        r_squared: Share of the variance that the line explains, 1 for all of it.
        slopes: Slope between each two neighbours, one fewer than there are points.
    """

    fixed: float
    slope: float
    r_squared: float
    slopes: tuple[float, ...]

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Self:
        """Return the line through points.

        Args:
            points: Two or more, sorted by size; no size twice.
        """
        sizes, costs = np.array(points, dtype=np.float64).T
        slope, fixed = np.polyfit(sizes, costs, 1)
        left = ((costs - fixed - slope * sizes) ** 2).sum()
        spread = ((costs - costs.mean()) ** 2).sum()
        slopes = np.diff(costs) / np.diff(sizes)
        return cls(float(fixed), float(slope), float(1 - left / spread) if spread else 1.0, tuple(slopes.tolist()))

    @property
    def worst_neighbours(self) -> float | None:
        """Most that a slope differs from the one before it, as a share of the smaller; None for fewer than two."""
        pairs = list(zip(self.slopes, self.slopes[1:], strict=False))
        if not pairs:
            return None
        return max(abs(b - a) / min(abs(a), abs(b)) if a and b else float("inf") for a, b in pairs)

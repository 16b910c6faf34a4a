"""What trainings cost that were measured in rounds, on a machine whose speed changes from minute to minute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def costs_of(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return what each size costs, from rounds of all of them: the median of its ratio to its round.

    A slow minute makes all of a round slower by a factor, so that sizes are compared within rounds: each cost is
    divided by the geometric mean of its round, the median over the rounds is taken, and the median of those means gives
    it its unit. (Rounds are the blocks of a randomized block design, with a factor each: Box, Hunter and Hunter,
    Statistics for Experimenters, 2nd edition, chapter 4.)

    Args:
        rounds: One or more, each with a cost above 0 of every size, in the same order.
    """
    costs = np.array(rounds, dtype=np.float64)
    means = np.exp(np.log(costs).mean(axis=1))
    relative: list[float] = (np.median(costs / means[:, None], axis=0) * np.median(means)).tolist()
    return relative

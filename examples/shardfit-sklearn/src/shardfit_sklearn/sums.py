"""Sums over all rows of all workers, and linear equations, of which no bit depends on the number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from shardfit.collectives.contract import Collectives
from shardfit.errors import InvalidValueError
from shardfit.exact_sum import LIMBS, exact_parts, exact_total

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# A pivot that is so much smaller than what it was made from is rounding and nothing else.
_SMALLEST_PIVOT = 1e-13


class RowSums:
    """Several sums over rows, without rounding until they are asked for.

    Args:
        count: How many sums.
    """

    def __init__(self, count: int) -> None:
        self._parts = np.zeros((count, LIMBS), dtype=np.int64)

    def add(self, terms: Iterable[Vector]) -> None:
        """Add some rows: for each sum its terms, float64, shape [rows]."""
        for parts, values in zip(self._parts, terms, strict=True):
            parts += exact_parts(values)

    def over_all(self, peers: Collectives) -> Vector:
        """Return the sums over every row of every worker, each rounded once. Called on every worker."""
        return np.array([exact_total(parts) for parts in peers.allreduce(self._parts)])


def linear_scores(columns: Iterable[Vector], coefficients: Vector, intercept: float, rows: int) -> Vector:
    """Return `intercept` plus the columns times their coefficients, for each row on its own; shape [rows].

    A matrix product would be faster, but the last bits of its rows depend on how many there are.
    """
    scores = np.full(rows, intercept)
    for column, coefficient in zip(columns, coefficients.tolist(), strict=True):
        scores += column * coefficient
    return scores


def solve(matrix: Matrix, right: Vector, names: Sequence[str]) -> Vector:
    """Return the solution of symmetric positive definite equations, with the same operations on every machine.

    Args:
        matrix: Shape [n, n].
        right: Shape [n].
        names: What each unknown belongs to, for messages.

    Raises:
        InvalidValueError: The equations have no single solution.
    """
    left, solution = matrix.copy(), right.copy()
    for k in range(len(right)):
        if not left[k, k] > _SMALLEST_PIVOT * matrix[k, k]:
            raise InvalidValueError(
                "solving for the coefficients",
                f"{names[k]!r} is constant, or a combination of the features before it",
                "Leave it out, or use estimator = 'ridge' with a penalty.",
            )
        factors = left[k + 1 :, k] / left[k, k]
        left[k + 1 :] -= np.outer(factors, left[k])
        solution[k + 1 :] -= factors * solution[k]
    for k in reversed(range(len(right))):
        solution[k] = (solution[k] - np.sum(left[k, k + 1 :] * solution[k + 1 :])) / left[k, k]
    return solution


def symmetric(upper: Vector, size: int) -> Matrix:
    """Return the matrix whose upper triangle, row by row, is `upper`."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = upper
    return matrix + np.triu(matrix, 1).T

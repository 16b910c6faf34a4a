"""Proof that each row was used exactly once: a digest of row numbers that does not depend on their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from shardfit.errors import CoverageError
from shardfit.shard_plan import Shard

_MODULUS = 2**64


@dataclass(frozen=True, slots=True)
class RowDigest:
    """A multiset of global row numbers, told apart by its size and its sums of first, second and third powers.

    A global row number stands for one (fragment, row). Sums of powers are the same in any order, add up over workers,
    and have a closed form for a range, so that the plan's digest costs nothing however many rows there are. Rows that
    are dropped and rows that are repeated in their place keep all four numbers only if they solve the
    Prouhet-Tarry-Escott problem of degree 3, which takes at least four of each, or if their sums differ by multiples of
    2**64. One row in place of another is always told.

    Args:
        rows: Number of rows.
        powers: Sums of the first, second and third powers, modulo 2**64.
    """

    rows: int = 0
    powers: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of_rows(cls, row_ids: npt.NDArray[np.int64]) -> RowDigest:
        """Return the digest of global row numbers; int64, shape [rows]."""
        # Numbers that always grow, and end as far apart as there are steps, leave none out.
        if len(row_ids) and row_ids[-1] - row_ids[0] == len(row_ids) - 1 and (row_ids[1:] > row_ids[:-1]).all():
            return cls.of_range(int(row_ids[0]), int(row_ids[-1]) + 1)
        first = row_ids.astype(np.uint64)
        second = first * first
        powers = (int(first.sum()), int(second.sum()), int((second * first).sum()))
        return cls(len(row_ids), powers)

    @classmethod
    def of_range(cls, start: int, stop: int) -> RowDigest:
        """Return the digest of the global row numbers `start` to `stop` (exclusive), in constant time."""
        # Sums of the numbers below each end, from which those of their squares and cubes follow.
        first, last = start * (start - 1) // 2, stop * (stop - 1) // 2
        squares = last * (2 * stop - 1) // 3 - first * (2 * start - 1) // 3
        cubes = last * last - first * first
        return cls(stop - start, ((last - first) % _MODULUS, squares % _MODULUS, cubes % _MODULUS))

    @classmethod
    def of_shard(cls, shard: Shard) -> RowDigest:
        """Return the digest of the rows that a shard plans."""
        pieces = (cls.of_range(piece.first_row, piece.first_row + piece.rows) for piece in shard.slices)
        return cls.total(pieces)

    @classmethod
    def total(cls, parts: Iterable[RowDigest]) -> RowDigest:
        """Return the digest of all rows of `parts` together."""
        return reduce(cls.__add__, parts, cls())

    def __add__(self, other: RowDigest) -> RowDigest:
        a, b = self.powers, other.powers
        powers = ((a[0] + b[0]) % _MODULUS, (a[1] + b[1]) % _MODULUS, (a[2] + b[2]) % _MODULUS)
        return RowDigest(self.rows + other.rows, powers)

    def __str__(self) -> str:
        return f"{self.rows}:{self.powers[0]:016x}{self.powers[1]:016x}{self.powers[2]:016x}"


@dataclass(frozen=True, slots=True)
class DatasetCoverage:
    """The rows of one dataset as they were planned and as they were used.

    Args:
        planned: The rows of the plan.
        handed: The rows handed to the library, tallied where they were handed over.
        library_rows: How many rows the library itself says it holds, or None where it cannot say.
        profiled_content: Digest of what the rows held when they were profiled, or None.
        handed_content: Digest of what they held when they were handed over, or None.
    """

    planned: RowDigest
    handed: RowDigest
    library_rows: int | None = None
    profiled_content: int | None = None
    handed_content: int | None = None

    @property
    def exact(self) -> bool:
        """Whether each planned row was handed over exactly once, as it was profiled, and the library holds as many."""
        same_content = self.profiled_content in (None, self.handed_content)
        return self.planned == self.handed and same_content and self.library_rows in (None, self.planned.rows)

    def __add__(self, other: DatasetCoverage) -> DatasetCoverage:
        profiled, handed = (_add_content(getattr(self, name), getattr(other, name)) for name in _CONTENTS)
        known = self.library_rows is not None and other.library_rows is not None
        library = (self.library_rows or 0) + (other.library_rows or 0) if known else None
        return DatasetCoverage(self.planned + other.planned, self.handed + other.handed, library, profiled, handed)

    def check(self, dataset: str) -> None:
        """Check that the coverage is exact.

        Raises:
            CoverageError: It is not; says how many rows were planned, handed over and held.
        """
        if not self.exact:
            raise CoverageError(
                f"auditing the rows of {dataset!r}",
                f"planned {self.planned}, handed over {self.handed}, the library holds {self.library_rows!r} rows; "
                f"content {self.profiled_content!r} when profiled, {self.handed_content!r} when handed over",
                "A reader lost, repeated or altered rows; the model was discarded.",
            )


def check_coverage(
    reports: Sequence[Mapping[str, DatasetCoverage]], profiled: Mapping[str, int] | None = None
) -> dict[str, DatasetCoverage]:
    """Return the coverage of each dataset over all workers, each of which was exact.

    Args:
        reports: Dataset name -> coverage, of each worker by rank.
        profiled: Dataset name -> digest of what all its rows held when they were profiled, maybe by other workers.

    Raises:
        CoverageError: A worker lost, repeated or altered a row of its shard.
    """
    total: dict[str, DatasetCoverage] = {}
    for rank, report in enumerate(reports):
        for name, coverage in report.items():
            coverage.check(f"{name} (worker {rank})")
            total[name] = total[name] + coverage if name in total else coverage
    for name, content in (profiled or {}).items():
        total[name] = replace(total[name], profiled_content=content)
        total[name].check(name)
    return total


_CONTENTS = ("profiled_content", "handed_content")


def _add_content(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else (a + b) % _MODULUS

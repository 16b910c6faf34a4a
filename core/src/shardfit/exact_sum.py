"""Sums of floats without rounding: the same bits for any order of the values, on any number of workers.

A value is an integer of 53 bits times a power of two. Values of one sign and exponent are added as integers, which
cannot round; the sums are then written into one wide integer, in units of the smallest subnormal (2**-1074), as
limbs of 32 bits. Wide integers of different workers are added limb by limb. Only the end result is rounded, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

LIMBS = 68
"""Length of the arrays that hold parts: 68 limbs of 32 bits hold the sum of 2**55 of the largest floats."""

_LIMB_BITS = 32
_LIMB_MASK = 2**32 - 1
_HALF_BITS = 26
_HALF_MASK = np.uint64(2**_HALF_BITS - 1)
_UNIT = 2**1074
# Temporaries stay in the cache. Sums of 26-bit integers would be exact in a float64 up to 2**27 rows.
_BLOCK_ROWS = 2**15
_NOT_FINITE = 2047
# So many tell most values that are no whole numbers.
_FEW = 16


def exact_parts(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the sum of `values` as parts that can be added without rounding; int64, shape [LIMBS].

    The limbs are carried: each is 0 to 2**32 - 1, but for the last, which has the sign. So up to 2**31 arrays of parts
    can be added elementwise, in any order; `carry` makes the limbs of the result canonical again.

    Args:
        values: Finite float64, any shape, at most 2**31 of them; empty gives zeros.

    Raises:
        ValueError: A value is not finite.
    """
    flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    if _adds_up_exactly(flat):
        flat = np.array([flat.sum()])
    bits = flat.view(np.uint64)
    counts = np.zeros(4096, dtype=np.int64)
    low = np.zeros(4096, dtype=np.int64)
    high = np.zeros(4096, dtype=np.int64)
    for start in range(0, len(bits), _BLOCK_ROWS):
        block = bits[start : start + _BLOCK_ROWS]
        sign_and_exponent = (block >> np.uint64(52)).astype(np.intp)
        counts += np.bincount(sign_and_exponent, minlength=4096)
        low += _integer_sums(sign_and_exponent, block & _HALF_MASK)
        high += _integer_sums(sign_and_exponent, (block >> np.uint64(_HALF_BITS)) & _HALF_MASK)
    if counts[_NOT_FINITE] or counts[2048 + _NOT_FINITE]:
        raise ValueError(f"only finite values have an exact sum, found {values!r}")
    counts[[0, 2048]] = 0  # subnormals and zeros have no implicit leading bit
    high += counts << _HALF_BITS
    return _parts_of_exponents(low[:2048] - low[2048:], high[:2048] - high[2048:])


def _adds_up_exactly(values: npt.NDArray[np.float64]) -> bool:
    """Return whether values are whole numbers with no sum beyond 2**53, as counts and classes are."""
    if not len(values) or (values[:_FEW] != np.rint(values[:_FEW])).any():
        return False
    largest = max(float(values.max()), -float(values.min()))
    return largest * len(values) <= 2.0**53 and not (values != np.rint(values)).any()


def _integer_sums(sign_and_exponent: npt.NDArray[np.intp], integers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the sum of `integers` (26 bits) for each of the 4,096 signs and exponents."""
    return np.bincount(sign_and_exponent, weights=integers, minlength=4096).astype(np.int64)


def _parts_of_exponents(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the carried limbs of the sum of (low + high * 2**26) * 2**(exponent - 1) over 2,048 exponents."""
    used = np.flatnonzero(low | high)
    # Exponent 0 (subnormals) has the same unit as exponent 1.
    offsets = np.concatenate([np.maximum(used, 1) - 1, np.maximum(used, 1) - 1 + _HALF_BITS])
    sums = np.concatenate([low[used], high[used]])
    limbs, shifts = offsets // _LIMB_BITS, offsets % _LIMB_BITS
    # Shifting all 64 bits at once would overflow; the arithmetic right shift keeps the sign in the upper half.
    lower, upper = (sums & _LIMB_MASK) << shifts, (sums >> _LIMB_BITS) << shifts
    parts = np.zeros(LIMBS, dtype=np.int64)
    np.add.at(parts, limbs, lower & _LIMB_MASK)
    np.add.at(parts, limbs + 1, (lower >> _LIMB_BITS) + (upper & _LIMB_MASK))
    np.add.at(parts, limbs + 2, upper >> _LIMB_BITS)
    return carry(parts)


def carry(parts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the canonical form of parts: equal sums have equal limbs; int64, shape [LIMBS]."""
    result = np.empty(LIMBS, dtype=np.int64)
    carried = 0
    for index, limb in enumerate(parts.tolist()):
        carried += limb
        result[index] = carried & _LIMB_MASK if index < LIMBS - 1 else carried
        carried >>= _LIMB_BITS
    return result


def exact_total(parts: npt.NDArray[np.int64]) -> float:
    """Return the sum that `parts` hold, rounded once to the nearest float64; infinite where it is too large for one."""
    units = 0
    for limb in reversed(parts.tolist()):
        units = (units << _LIMB_BITS) + limb
    try:
        return units / _UNIT  # a quotient of two integers is correctly rounded, subnormals included
    except OverflowError:
        return float("inf") if units > 0 else float("-inf")


def _no_parts() -> npt.NDArray[np.int64]:
    return np.zeros(LIMBS, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ExactSum:
    """A sum without rounding. Sums of parts of a dataset add up to the sum of all of it, in any order.

    Args:
        parts: As `exact_parts` gives them; int64, shape [LIMBS]; zero by default. Kept in canonical form.
    """

    parts: npt.NDArray[np.int64] = field(default_factory=_no_parts)

    def __post_init__(self) -> None:
        parts = carry(np.asarray(self.parts, dtype=np.int64))
        parts.setflags(write=False)
        object.__setattr__(self, "parts", parts)

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Self:
        """Return the sum of finite float64 `values`, any shape.

        Raises:
            ValueError: A value is not finite.
        """
        return cls(exact_parts(values))

    @classmethod
    def from_array(cls, parts: npt.NDArray[np.int64]) -> Self:
        """Return the sum that `as_array` gave, or an elementwise sum of up to 2**31 of such arrays."""
        return cls(parts)

    def as_array(self) -> npt.NDArray[np.int64]:
        """Return the canonical parts; int64, shape [LIMBS], read-only."""
        return self.parts

    @property
    def total(self) -> float:
        """The sum, rounded once to the nearest float64."""
        return exact_total(self.parts)

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(self.parts + other.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExactSum) and bool(np.array_equal(self.parts, other.parts))

    def __hash__(self) -> int:
        return hash(self.parts.tobytes())


__all__ = ["LIMBS", "ExactSum", "carry", "exact_parts", "exact_total"]

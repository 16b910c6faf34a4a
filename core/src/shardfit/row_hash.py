"""Hashes of row numbers and of values: the same on every machine, for every division of the data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def hash_rows(row_ids: npt.NDArray[np.int64], *seeds: int) -> npt.NDArray[np.uint64]:
    """Return one uniform 64-bit number for each global row number, a pure function of it and the seeds.

    The finaliser is that of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

    Args:
        row_ids: int64, shape [rows].
        seeds: Any integers; other seeds give unrelated numbers.

    Returns:
        uint64, shape [rows].
    """
    key = 0
    for seed in seeds:
        key = int(_mix(np.array([(key + (seed + 1) * _GOLDEN) & _MASK], dtype=np.uint64))[0])
    return _mix(row_ids.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key))


def rows_below(fraction: float) -> np.uint64:
    """Return the number that a hash of `hash_rows` lies below with probability `fraction`, 0 to 1."""
    return np.uint64(min(int(fraction * 2**64), _MASK))


def hash_values(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return a 32-bit number for each value: equal for equal values, different for different ones.

    The finaliser is that of MurmurHash3, which permutes the 32-bit numbers.

    Args:
        values: float32, of one axis or more. Both zeros count as one value; what NaN gives means nothing.
    """
    with np.errstate(invalid="ignore"):
        bits = (values + np.float32(0)).view(np.uint32)
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x85EBCA6B)
    bits ^= bits >> np.uint32(13)
    bits *= np.uint32(0xC2B2AE35)
    bits ^= bits >> np.uint32(16)
    return bits


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

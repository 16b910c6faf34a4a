"""Rows as sorted 64-bit keys of score, label and weight: the canonical order that exact curves are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidValueError
from shardfit.metrics.contract import Floats, Integers, Reducer

Keys = npt.NDArray[np.uint64]

HIGH_CODES = 2**16
"""How many values the upper half of a score's code has; the lower half has as many."""

_LABEL_BIT = np.uint64(2**31)
_WEIGHT_MASK = np.uint64(2**31 - 1)
_CODE_BITS = 32
_HALF_CODE_BITS = 16


def descending_codes(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return codes that order as the scores do, from the highest to the lowest; -0.0 and 0.0 are the same."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.asarray(bits ^ (((bits >> np.uint32(31)) - np.uint32(1)) & np.uint32(2**31 - 1)))


def score_keys(scores: Floats, labels: Floats, weights: Floats | None) -> Keys:
    """Return the sorted keys of rows: 32 bits of the score's code, a label bit, 31 bits of the float32 weight.

    A row whose label lies between 0 and 1 becomes two: positive with that part of its weight, negative with the rest.
    Rows without weight have no key.

    Args:
        scores: Not nan; taken as float32, shape [rows].
        labels: In [0, 1]; shape [rows].
        weights: 0 or more; taken as float32, shape [rows], or None for 1 each.

    Raises:
        InvalidValueError: A label lies outside [0, 1].
    """
    wrong = ~((labels >= 0) & (labels <= 1))
    if wrong.any():
        raise InvalidValueError(
            "evaluating an area under a curve", f"a label of {float(labels[wrong][0])!r}", "Labels must be in [0, 1]."
        )
    codes = descending_codes(scores.astype(np.float32, copy=False)).astype(np.uint64) << np.uint64(_CODE_BITS)
    relevance: npt.NDArray[np.float32] = labels.astype(np.float32, copy=False)
    weights = np.ones(len(labels), dtype=np.float32) if weights is None else weights.astype(np.float32, copy=False)
    if ((relevance == 0) | (relevance == 1)).all():
        keys = codes | (relevance.astype(np.uint64) << np.uint64(31)) | _weight_bits(weights)
    else:
        negative = codes | _weight_bits((1 - relevance) * weights)
        keys = np.concatenate([codes | _LABEL_BIT | _weight_bits(relevance * weights), negative])
    keys = keys[(keys & _WEIGHT_MASK) != 0]
    keys.sort()
    return np.asarray(keys)


def _weight_bits(weights: Floats) -> Keys:
    # Adding 0 turns -0.0, whose sign bit is set, into 0.0.
    return (weights.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32).astype(np.uint64)


def key_codes(keys: Keys) -> Keys:
    """Return the codes of the scores; shape [rows]."""
    return np.asarray(keys >> np.uint64(_CODE_BITS))


def key_weights(keys: Keys) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return each row's positive and its negative weight, one of which is 0; each of shape [rows]."""
    weights = (keys & _WEIGHT_MASK).astype(np.uint32).view(np.float32).astype(np.float64)
    positive = (keys & _LABEL_BIT) != 0
    return np.where(positive, weights, 0.0), np.where(positive, 0.0, weights)


@dataclass(frozen=True, slots=True)
class ScoreSlice:
    """A range of scores and how many rows of all workers lie in it.

    Args:
        first: Its first code.
        last: Its last code.
        rows: Keys of all workers in it, 1 or more.
    """

    first: int
    last: int
    rows: int

    def of(self, keys: Keys) -> Keys:
        """Return the part of sorted `keys` that lies in this slice."""
        return keys[_position(keys, self.first) : _position(keys, self.last + 1)]


def _position(keys: Keys, code: int) -> int:
    return len(keys) if code >= 2**_CODE_BITS else int(np.searchsorted(keys, np.uint64(code << _CODE_BITS)))


def count_high_codes(keys: Keys) -> Integers:
    """Return how many keys have each upper half of a code; int64, shape [HIGH_CODES]."""
    return np.bincount((keys >> np.uint64(48)).astype(np.intp), minlength=HIGH_CODES)


def score_slices(keys: Keys, high_counts: Integers, slice_rows: int, reducer: Reducer) -> list[ScoreSlice]:
    """Return slices that cover the scores of all workers in order, the same on every worker and for any number.

    Args:
        keys: This worker's sorted keys.
        high_counts: `count_high_codes` of all workers added up.
        slice_rows: The most rows that a slice may have, unless they all have one score.
        reducer: How the workers add up; called once for each upper half that has more rows.
    """
    slices: list[ScoreSlice] = []
    for scores in _score_bins(keys, high_counts, slice_rows, reducer):
        if slices and slices[-1].rows + scores.rows <= slice_rows:
            slices[-1] = ScoreSlice(slices[-1].first, scores.last, slices[-1].rows + scores.rows)
        else:
            slices.append(scores)
    return slices


def _score_bins(keys: Keys, high_counts: Integers, slice_rows: int, reducer: Reducer) -> Iterator[ScoreSlice]:
    for high in np.flatnonzero(high_counts).tolist():
        first = high << _HALF_CODE_BITS
        whole = ScoreSlice(first, first + HIGH_CODES - 1, int(high_counts[high]))
        if whole.rows <= slice_rows:
            yield whole
            continue
        low_codes = key_codes(whole.of(keys)).astype(np.intp) - first
        low_counts = reducer.sum(np.bincount(low_codes, minlength=HIGH_CODES))
        for low in np.flatnonzero(low_counts).tolist():
            yield ScoreSlice(first + low, first + low, int(low_counts[low]))


def gather_keys(own: Keys, ranks: Integers, reducer: Reducer) -> Keys:
    """Return the sorted keys of all workers.

    Args:
        own: This worker's sorted keys.
        ranks: How many keys each worker has; int64, shape [world_size].
        reducer: How the workers add up; called once, with as many integers as there are keys.
    """
    if reducer.world_size == 1:
        return own
    start = int(ranks[: reducer.rank].sum())
    everyone = np.zeros(int(ranks.sum()), dtype=np.int64)
    everyone[start : start + len(own)] = own.view(np.int64)
    gathered = reducer.sum(everyone).view(np.uint64)
    return np.sort(gathered, kind="stable")  # merges the workers' sorted runs

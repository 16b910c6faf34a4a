"""By rows or by columns: how LightGBM sums histograms up, decided from the profile.

LightGBM itself would measure what is faster, so that the choice would depend on the machine and the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardfit.profile import Profile
from shardfit_lightgbm.parameters import YES

# So many bins of 16 bytes fit into the nearer caches of a core, where rows are added up fastest. With 25,500 of them
# (100 columns) columns are as fast, and need no second copy of the bins.
_MOST_BINS = 2**14
# LightGBM lays rows out sparsely from 0.25 on.
_LARGEST_SHARE = 0.2


def direction(params: Mapping[str, Any], max_bin: int, profile: Profile) -> dict[str, bool]:
    """Return the parameter that makes LightGBM sum up by rows or by columns.

    By rows is faster where the bins are few. It is safe only where LightGBM lays rows out densely: a sparse layout is
    given memory for as many entries as the reference lets it expect, and written beyond where a shard has more. Rows
    are dense where the reference, in which each bin of a feature is as frequent as the others, has many bins a feature;
    one with categories counts as if it had a single bin.

    Args:
        params: LightGBM's, by their main names.
        max_bin: Most bins of a feature.
        profile: Of the whole training data.
    """
    if asks_for_columns(params):
        return {"force_col_wise": True}
    bins = [min(len(values.values), max_bin) if values.complete else max_bin for values in profile.distinct]
    share = sum(1.0 / max(count, 1) for count in bins) / len(bins)
    by_rows = share < _LARGEST_SHARE and may_sum_by_rows(len(bins), max_bin)
    return {"force_row_wise" if by_rows else "force_col_wise": True}


def asks_for_columns(params: Mapping[str, Any]) -> bool:
    """Return whether `force_col_wise` is set, in one of LightGBM's words for it, in letters of any size."""
    value = params.get("force_col_wise")
    return (value.lower() if isinstance(value, str) else value) in YES


def may_sum_by_rows(features: int, max_bin: int) -> bool:
    """Return whether there are few enough bins; LightGBM then holds them once more, row after row.

    Args:
        features: Number of features.
        max_bin: Most bins of a feature.
    """
    return features * max_bin <= _MOST_BINS

"""The profile pass of one worker: reads each shard once, checks every value, and learns what the bins need."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.binned_trainer import BinnedTrainer
from shardfit.casts import CategoryValue, ColumnCast, cast_to_float32, distinct_categories
from shardfit.columns import ColumnRoles
from shardfit.errors import InvalidValueError
from shardfit.matrix_reader import MatrixSpec, digest_content
from shardfit.profile import LARGEST_EXACT_INTEGER, Profile, ProfileBuilder, SampleSpec
from shardfit.shard_reader import ShardBatch, ShardReader
from shardfit.sparse import SparseRows

Float32Array = npt.NDArray[np.float32]

# So many values of some columns stay in a near cache while they are looked at.
_BLOCK_VALUES = 2**16


@dataclass(frozen=True)
class ProfileRequest:
    """What the profile pass needs to know.

    Args:
        roles: Resolved column roles.
        casts: One a column of `roles.all`.
        missing: Value that counts as missing beside NaN.
        terms: Number of terms that the trainer sums.
        specs: Dataset name -> what to keep of it.
    """

    roles: ColumnRoles
    casts: tuple[ColumnCast, ...]
    missing: float
    terms: int
    specs: Mapping[str, SampleSpec]


def profile_shard(
    reader: ShardReader, trainer: BinnedTrainer, config: Any, request: ProfileRequest, *, with_terms: bool
) -> Profile:
    """Return the profile of one shard.

    Args:
        reader: Reads the shard.
        trainer: Says what to sum.
        config: The trainer's configuration.
        request: What to learn.
        with_terms: Whether the trainer's terms are summed: for the training data only.

    Raises:
        InvalidValueError: A null, NaN or infinite label, weight or base margin; a negative weight; an infinite
            feature. Says where.
    """
    spec = MatrixSpec(request.roles, request.casts, {}, missing=request.missing)
    builder = ProfileBuilder(
        0 if spec.sparse_features else len(request.roles.features),
        len(request.roles.label),
        request.terms,
        request.specs[reader.dataset],
        spec.sparse_features,
        reader.rows,
    )
    integers = frozenset(j for j, cast in enumerate(spec.feature_casts) if _is_wide_integer(cast))
    for batch in reader.batches():
        labels, weights = _take_in(builder, _Checks(reader.dataset, batch, spec), integers)
        if with_terms:
            builder.add_terms(trainer.label_terms(config, labels, weights))
    return builder.build()


def check_weights(dataset: str, profile: Profile, roles: ColumnRoles) -> None:
    """Check that some row of a dataset weighs something. Called on the driver, with the merged profile.

    Raises:
        InvalidValueError: Every weight is 0.
    """
    # No weight is negative, so the largest tells whether their sum is 0.
    if roles.weight is not None and not profile.weight_maximum > 0:
        raise InvalidValueError(
            f"summing the weights in column {roles.weight!r} of dataset {dataset!r}",
            f"found 0.0 in each of {profile.rows:,} rows",
            "At least one row needs a positive weight.",
        )


def value_warnings(profile: Profile, roles: ColumnRoles) -> list[str]:
    """Return what the values of the training data give cause to warn about, a sentence each. Called on the driver.

    Args:
        profile: Of the whole training data.
        roles: Resolved column roles.
    """
    names = roles.features if profile.sparse is None else ()
    found = [
        f"{name}: {count:,} whole numbers from {LARGEST_EXACT_INTEGER:,} on are rounded to float32; neighbours may "
        "become equal."
        for name, count in zip(names, profile.beyond_float32.tolist(), strict=True)
        if count
    ]
    return found + [
        f"{name}: every value is missing."
        for name, missing in zip(names, profile.missing.tolist(), strict=True)
        if missing == profile.rows and name not in profile.categories
    ]


@dataclass(frozen=True)
class _Checks:
    """What the values of one batch must be."""

    dataset: str
    batch: ShardBatch
    spec: MatrixSpec

    def finite(self, names: tuple[str, ...]) -> Float32Array:
        """Return some columns, each of whose values must be a finite number."""
        columns = [self.spec.column(self.batch.records, name) for name in names]
        for name, column in zip(names, columns, strict=True):
            if not np.isfinite(column).all():
                bad = ~np.isfinite(column)
                value = float(column[np.flatnonzero(bad)[0]])
                self.reject(name, bad, "a null or NaN" if np.isnan(value) else f"the value {value!r}")
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def weights(self, name: str) -> None:
        """Check that the weights are numbers of 0 or more."""
        weights = self.finite((name,))
        if (negative := weights < 0).any():
            self.reject(name, negative, f"the negative weight {float(weights[np.flatnonzero(negative)[0]])!r}")

    def sparse(self) -> SparseRows | None:
        """Return the features where they are sparse, each of whose values must be finite; else None."""
        name = self.spec.roles.features[0]
        try:
            rows = self.spec.encode_sparse(self.batch.records)
        except InvalidValueError as error:
            first, origin = int(self.batch.row_ids[0]), self.batch.origin
            asked = f"checking column {name!r} of dataset {self.dataset!r} ({origin})"
            raise InvalidValueError(asked, f"{error.found} that begins with row {first}", error.advice) from error
        if rows is not None and not np.isfinite(rows.values).all():
            bad = np.zeros(rows.rows, dtype=bool)
            bad[rows.row_numbers[~np.isfinite(rows.values)]] = True
            index = int(rows.indices[np.flatnonzero(~np.isfinite(rows.values))[0]])
            self.reject(name, bad, f"an infinite value at index {index}")
        return rows

    def numbers(self, position: int, cast: ColumnCast) -> Float32Array:
        """Return a feature that is no category."""
        return cast_to_float32(self.batch.records.column(position), cast, None)

    def categories(self, name: str) -> frozenset[CategoryValue]:
        """Return the distinct categories of a column."""
        try:
            return distinct_categories(self.batch.records.column(name))
        except InvalidValueError as error:
            asked = f"checking column {name!r} of dataset {self.dataset!r} ({self.batch.origin})"
            raise InvalidValueError(asked, error.found, error.advice) from error

    def reject(self, column: str, bad: npt.NDArray[np.bool_], what: str) -> None:
        """Say where the first bad value is."""
        first = int(np.flatnonzero(bad)[0])
        row, origin = int(self.batch.row_ids[first]), self.batch.origin_of(first)
        raise InvalidValueError(
            f"checking column {column!r} of dataset {self.dataset!r}",
            f"found {what} in row {row} ({origin})",
            "Filter or fill such rows before training.",
        )


def _take_in(
    builder: ProfileBuilder, checks: _Checks, integers: Container[int]
) -> tuple[Float32Array, Float32Array | None]:
    """Take in the rows of one batch; return their labels and weights."""
    batch, roles = checks.batch, checks.spec.roles
    labels = checks.finite(roles.label)
    weights = checks.spec.weights(batch.records)
    if roles.weight is not None:
        checks.weights(roles.weight)
    if roles.base_margin:
        checks.finite(roles.base_margin)
    if (rows := checks.sparse()) is not None:
        builder.add_sparse(batch.row_ids, rows, weights)
    else:
        builder.add_features(batch.row_ids, _feature_blocks(checks, builder), weights, integers)
        if (infinite := builder.infinite_feature()) is not None:
            cast = checks.spec.feature_casts[infinite]
            values = checks.numbers(infinite, cast)
            bad = np.isinf(values) & (values != np.float32(checks.spec.missing))
            checks.reject(cast.name, bad, "an infinite value")
    builder.add_labels(batch.row_ids, labels)
    builder.add_content(digest_content(batch.row_ids, labels))
    return labels, weights


def _feature_blocks(checks: _Checks, builder: ProfileBuilder) -> Iterator[Float32Array]:
    """Yield some columns after the others: a matrix of all would be as large as the batch once more."""
    casts, rows = checks.spec.feature_casts, checks.batch.records.num_rows
    at_once = max(_BLOCK_VALUES // rows, 1)
    for first in range(0, len(casts), at_once):
        columns = [_column(checks, builder, j, cast) for j, cast in enumerate(casts[first : first + at_once], first)]
        # One alone may be a view of Arrow's memory.
        block = np.stack(columns) if len(columns) > 1 else columns[0][np.newaxis]
        if not np.isnan(missing := np.float32(checks.spec.missing)):
            block = np.where(block == missing, np.float32(np.nan), block)
        yield block


def _column(checks: _Checks, builder: ProfileBuilder, position: int, cast: ColumnCast) -> Float32Array:
    if cast.rule != "category":
        return checks.numbers(position, cast)
    builder.add_categories(cast.name, checks.categories(cast.name))
    return np.full(checks.batch.records.num_rows, np.nan, dtype=np.float32)


def _is_wide_integer(cast: ColumnCast) -> bool:
    return cast.arrow_type in {"int32", "int64", "uint32", "uint64"}

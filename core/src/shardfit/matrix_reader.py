"""A shard as float32 matrices: what boosters are fed with, batch by batch."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.casts import CategoryMap, ColumnCast, cast_to_float32, encode_features
from shardfit.columns import ColumnRoles
from shardfit.coverage import DatasetCoverage, RowDigest
from shardfit.row_hash import hash_rows
from shardfit.shard_reader import ShardBatch, ShardReader
from shardfit.sparse import SparseRows

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MatrixSpec:
    """How rows become a matrix: one value for training, evaluation and prediction, so that they cannot differ.

    Args:
        roles: Resolved column roles.
        casts: One a column of `roles.all`, in that order.
        categories: Categorical column -> its category map.
        max_bin: Most bins of a feature.
        missing: A value that counts as missing, beside nulls and NaN; NaN for none.
    """

    roles: ColumnRoles
    casts: tuple[ColumnCast, ...]
    categories: Mapping[str, CategoryMap] = field(default_factory=dict)
    max_bin: int = 256
    missing: float = float("nan")

    @property
    def feature_casts(self) -> tuple[ColumnCast, ...]:
        """The casts of the features, in the order of the model."""
        return self.casts[: len(self.roles.features)]

    @property
    def sparse_features(self) -> int | None:
        """Number of features of the sparse column, or None where features are dense."""
        return self.casts[0].features if self.casts[0].rule == "sparse" else None

    def encode_sparse(self, records: pa.RecordBatch) -> SparseRows | None:
        """Return the features of `records` where they are sparse, those that are missing left out; else None.

        Raises:
            InvalidValueError: An index is not above the one before it, or beyond the number of features.
        """
        if (features := self.sparse_features) is None:
            return None
        name = self.roles.features[0]
        return SparseRows.of(records.column(name), name, features, self.missing)

    def cast(self, column: str) -> ColumnCast:
        """Return the cast of one column."""
        return self.casts[self.roles.all.index(column)]

    def encode(self, records: pa.RecordBatch) -> Float32Array:
        """Return the features of `records`: float32, shape [rows, features], rows contiguous, NaN where missing."""
        features = encode_features(records, self.feature_casts, self.categories)
        if not np.isnan(self.missing):
            numbers = np.array([cast.rule != "category" for cast in self.feature_casts])
            features[(features == np.float32(self.missing)) & numbers] = np.nan
        return features

    def column(self, records: pa.RecordBatch, name: str) -> Float32Array:
        """Return one column that is no feature: float32, shape [rows], NaN where null."""
        return cast_to_float32(records.column(name), self.cast(name), None)

    def labels(self, records: pa.RecordBatch) -> Float32Array:
        """Return the labels: float32, shape [rows], or [rows, outputs] where there are several columns."""
        columns = [self.column(records, name) for name in self.roles.label]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def base_margin(self, records: pa.RecordBatch) -> Float32Array | None:
        """Return the base margins: float32, shape [rows] or [rows, outputs], or None where there is no such column."""
        columns = [self.column(records, name) for name in self.roles.base_margin]
        return None if not columns else columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def weights(self, records: pa.RecordBatch) -> Float32Array | None:
        """Return the weights: float32, shape [rows], or None where there is no weight column."""
        return None if self.roles.weight is None else self.column(records, self.roles.weight)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureColumns:
    """The features of some rows, each column cast when it is asked for; a matrix would take as much memory once more.

    Args:
        records: The rows.
        spec: How they become numbers.
        codes: Position of a categorical feature -> its codes; float32, shape [rows]. Looking categories up takes its
            time by call, so that is done once for all rows.
    """

    records: pa.RecordBatch
    spec: MatrixSpec
    codes: Mapping[int, Float32Array]

    @classmethod
    def of(cls, records: pa.RecordBatch, spec: MatrixSpec) -> FeatureColumns:
        """Return the features of `records`.

        Raises:
            UnsupportedTypeError: As for `cast_to_float32`.
        """
        codes = {
            feature: cast_to_float32(records.column(cast.name), cast, spec.categories.get(cast.name))
            for feature, cast in enumerate(spec.feature_casts)
            if cast.rule == "category"
        }
        return cls(records, spec, codes)

    def __len__(self) -> int:
        return int(self.records.num_rows)

    def between(self, start: int, stop: int) -> FeatureColumns:
        """Return those of the rows from `start` to `stop` (exclusive)."""
        codes = {feature: values[start:stop] for feature, values in self.codes.items()}
        return FeatureColumns(self.records.slice(start, stop - start), self.spec, codes)

    def column(self, feature: int, start: int, stop: int) -> Float32Array:
        """Return some values of a feature: float32, contiguous, shape [stop - start], NaN where missing.

        A view of Arrow's memory where that has float32 without nulls. May be called by several threads at a time.

        Args:
            feature: Its position.
            start: First row.
            stop: The row after the last.
        """
        if feature in self.codes:
            return self.codes[feature][start:stop]
        cast, missing = self.spec.casts[feature], np.float32(self.spec.missing)
        values = cast_to_float32(self.records.column(cast.name).slice(start, stop - start), cast)
        if np.isnan(missing):
            return values
        return np.where(values == missing, np.float32(np.nan), values)

    def matrix(self) -> Float32Array:
        """Return all of them: float32, shape [rows, features], rows contiguous, NaN where missing."""
        return self.spec.encode(self.records)


@dataclass(frozen=True, slots=True)
class MatrixBatch:
    """Some rows, ready for a library.

    Args:
        row_ids: Global row numbers; int64, shape [rows].
        features: float32, shape [rows, features], rows contiguous.
        labels: float32, shape [rows] or [rows, outputs].
        weights: float32, shape [rows], or None.
        group_starts: For each row, whether a query group starts with it; bool, shape [rows], or None.
        base_margin: float32, shape [rows] or [rows, outputs], or None.
        sparse: The features where they are sparse; `features` is then without columns.
        columns: The features where `MatrixReader.batches` was asked for columns; `features` is then without columns.
    """

    row_ids: Int64Array
    features: Float32Array
    labels: Float32Array
    weights: Float32Array | None
    group_starts: npt.NDArray[np.bool_] | None
    base_margin: Float32Array | None
    sparse: SparseRows | None = None
    columns: FeatureColumns | None = None


class MatrixReader:
    """Reads one shard as matrices, any number of times, and tallies the rows of the latest pass.

    Args:
        shard: Reads the rows.
        spec: How they become matrices.
        gapless: Whether the profile found a value in every row of every feature.
    """

    def __init__(self, shard: ShardReader, spec: MatrixSpec, *, gapless: bool = False) -> None:
        self.shard = shard
        self.spec = spec
        self.gapless = gapless
        self.handed = RowDigest()
        self.content = 0

    @property
    def rows(self) -> int:
        """Number of rows of the shard."""
        return self.shard.rows

    def batches(self, *, by_columns: bool = False) -> Generator[MatrixBatch, None, None]:
        """Yield every row once, in global row order. What has been yielded counts as handed to the library.

        Args:
            by_columns: Whether dense features are handed over as `MatrixBatch.columns`; else as a matrix.
        """
        self.handed, self.content = RowDigest(), 0
        last_group: object = _NO_GROUP
        # One: the library bins it while the next is decoded, and a second would only wait in memory.
        for batch in self.shard.batches(ahead=1):
            starts = None
            if self.spec.roles.group is not None:
                column = batch.records.column(self.spec.roles.group)
                starts = _group_starts(column, last_group)
                last_group = column[-1].as_py()
            yield self._tally(self._encode(batch, starts, by_columns))

    def no_rows(self) -> MatrixBatch:
        """Return a batch without rows, for libraries that want at least one batch."""
        roles, width = self.spec.roles, self.spec.sparse_features

        def empty(columns: int) -> Float32Array:
            return np.empty(0 if columns == 1 else (0, columns), dtype=np.float32)

        return MatrixBatch(
            np.empty(0, dtype=np.int64),
            np.empty((0, len(roles.features) if width is None else 0), dtype=np.float32),
            empty(len(roles.label)),
            None if roles.weight is None else empty(1),
            None if roles.group is None else np.empty(0, dtype=bool),
            empty(len(roles.base_margin)) if roles.base_margin else None,
            None if width is None else SparseRows.nothing(0, width),
        )

    def coverage(self, library_rows: int | None, profiled_content: int | None) -> DatasetCoverage:
        """Return the coverage of the latest pass.

        Args:
            library_rows: How many rows the library says it holds.
            profiled_content: Digest of the content of the same shard when it was profiled.
        """
        planned = RowDigest.of_shard(self.shard.shard)
        return DatasetCoverage(planned, self.handed, library_rows, profiled_content, self.content)

    def _encode(self, batch: ShardBatch, starts: npt.NDArray[np.bool_] | None, by_columns: bool) -> MatrixBatch:
        records, sparse = batch.records, self.spec.encode_sparse(batch.records)
        by_columns = by_columns and sparse is None
        none = np.empty((records.num_rows, 0), dtype=np.float32)
        return MatrixBatch(
            batch.row_ids,
            none if by_columns or sparse is not None else self.spec.encode(records),
            self.spec.labels(records),
            self.spec.weights(records),
            starts,
            self.spec.base_margin(records),
            sparse,
            FeatureColumns.of(records, self.spec) if by_columns else None,
        )

    def _tally(self, batch: MatrixBatch) -> MatrixBatch:
        self.handed += RowDigest.of_rows(batch.row_ids)
        self.content = (self.content + digest_content(batch.row_ids, batch.labels)) % 2**64
        return batch


def digest_content(row_ids: Int64Array, labels: Float32Array) -> int:
    """Return a digest of which labels stand in which rows; digests of parts add up modulo 2**64.

    Two passes over the same rows give the same digest. A reader that shifts rows by repeating one and dropping a later
    one changes it unless every label in between equals its neighbour.

    Args:
        row_ids: Global row numbers; int64, shape [rows].
        labels: float32, shape [rows] or [rows, outputs].
    """
    first = labels if labels.ndim == 1 else labels[:, 0]
    bits = np.ascontiguousarray(first).view(np.uint32).astype(np.uint64)
    # Odd factors, so that no change of a single label can vanish; row 0 hashes to 0.
    return int(((bits + np.uint64(1)) * (hash_rows(row_ids) | np.uint64(1))).sum())


_NO_GROUP = object()


def _group_starts(column: pa.Array, last_group: object) -> npt.NDArray[np.bool_]:
    import pyarrow.compute as pc

    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    starts = np.ones(len(values), dtype=bool)
    changed = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
    starts[1:] = changed.to_numpy(zero_copy_only=False)
    starts[0] = last_group is _NO_GROUP or values[0].as_py() != last_group
    return starts

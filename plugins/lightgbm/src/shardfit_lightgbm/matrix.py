"""How a shard becomes a LightGBM Dataset: rows are binned batch by batch, by the bins of the reference."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.binned_trainer import BinReference
from shardfit.engine import WorkerContext
from shardfit.errors import InvalidArgumentError
from shardfit.matrix_reader import FeatureColumns, MatrixBatch, MatrixReader, MatrixSpec
from shardfit.saved_spec import check_same_categories
from shardfit.trainer import TRAIN, RunSettings
from shardfit_lightgbm.binary_file import load
from shardfit_lightgbm.binary_layout import BinaryLayout
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.labels import not_all_zero
from shardfit_lightgbm.model import LightGBMModel

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

# LightGBM's kZeroThreshold, a float32: what is no farther from zero is zero to it.
_ZERO = float(np.float32(1e-35))
# Two cut points, the fewest that are chosen, zero and missing values.
_FEWEST_BINS = 4
_DATASET_PARAMS = (
    "deterministic",
    "enable_bundle",
    "feature_pre_filter",
    "force_col_wise",
    "force_row_wise",
    "is_enable_sparse",
    "max_bin",
    "min_data_in_bin",
    "num_threads",
    "use_missing",
    "verbosity",
)


@dataclass(frozen=True, eq=False)
class ShardMatrix:
    """One shard in LightGBM's own form, and what is needed beside it.

    Args:
        data: The binned rows, or None where there are none.
        first: The binned first rows, which a second machine of this worker trains on, or None.
        row_ids: Global row numbers, which bagging is drawn by; int64, shape [rows], or None without bagging.
        labels: float32, shape [rows].
        weights: float32, shape [rows], or None.
        groups: Where query groups start and the row after the last; int64, shape [groups + 1], or None.
    """

    data: Any
    first: Any
    row_ids: Int64Array | None
    labels: Float32Array
    weights: Float32Array | None
    groups: Int64Array | None

    @property
    def library_rows(self) -> int:
        """Number of rows that LightGBM holds."""
        return sum(int(part.num_data()) for part in (self.first, self.data) if part is not None)


@dataclass(frozen=True)
class LibraryReference:
    """The bins in LightGBM's own form.

    Args:
        data: A Dataset that holds nothing but the cut points.
        layout: How LightGBM stores rows with these bins.
        spec: What every matrix is made with.
        params: Of every Dataset of the run.
        earlier: The model to go on from, or None.
    """

    data: Any
    layout: BinaryLayout
    spec: MatrixSpec
    params: dict[str, Any]
    earlier: Any = None


def open_reference(reference: BinReference, config: LightGBMConfig, settings: RunSettings) -> LibraryReference:
    """Return the reference Dataset. Column `j` holds the cut points of feature `j`, over and over.

    Each of them becomes a bin of its own, as frequent as the others; `direction` relies on it. A missing value is among
    them where the training data has one: LightGBM keeps a bin for missing values then.
    """
    spec = reference.spec
    categorical = [cast.rule == "category" for cast in spec.feature_casts]
    cut_points = [_apart(points.astype(np.float64)) for points in reference.cut_points]
    values = np.empty((max([1, *map(len, cut_points)]) + 1, len(cut_points)))
    for j, points in enumerate(cut_points):
        choose = _reference_values if config.keeps_missing else _values_without_missing
        values[:, j] = choose(points, len(values), config.has_missing[j], categorical[j])
    params = {name: config.params[name] for name in _DATASET_PARAMS if name in config.params}
    params |= _bins_of_features(reference, config)
    data = lgb.Dataset(
        values,
        label=np.zeros(len(values), dtype=np.float32),
        params=params,
        feature_name=list(spec.roles.features),
        categorical_feature=np.flatnonzero(categorical).tolist(),
    ).construct()
    earlier = None
    if settings.resume is not None:
        model = LightGBMModel.from_files(settings.resume.files)
        check_same_categories(spec, model.spec)
        earlier = model.booster()
    return LibraryReference(data, BinaryLayout.of(data, params), spec, params, earlier)


def _reference_values(points: Float64Array, rows: int, missing: bool, categorical: bool) -> Float64Array:
    """Return what a feature is in the reference; not nearly always the same, which LightGBM would store sparsely."""
    if len(points) + missing <= 1 or not len(points):
        # What says nothing is left out; LightGBM does so with zeros, and with a category that is always missing.
        return np.full(rows, np.nan if categorical else 0.0)
    values = np.resize(points, rows)
    if missing:
        values[-(rows // 2 if len(points) == 1 else 1) :] = np.nan
    return values


def _values_without_missing(points: Float64Array, rows: int, missing: bool, categorical: bool) -> Float64Array:
    """Return the same where `use_missing` is off: a missing number is 0 then, a missing category like unknown ones."""
    if categorical and len(points) <= 1:
        # Beside a category that no row has, one alone is stored densely.
        return np.resize([0.0, 1.0], rows)
    if missing and not categorical:
        points = np.union1d(points, [0.0])
    return _reference_values(points, rows, False, categorical)


def _apart(points: Float64Array) -> Float64Array:
    """Return the points that LightGBM can tell apart."""
    return np.unique(np.where(np.abs(points) <= _ZERO, 0.0, points))


def _bins_of_features(reference: BinReference, config: LightGBMConfig) -> dict[str, Any]:
    """Let every category and every cut point have a bin: beyond `max_bin`, LightGBM would drop the rarest."""
    sizes = [len(reference.spec.categories.get(name, ())) for name in reference.spec.roles.features]
    if max(sizes, default=0) < config.max_bin and config.max_bin >= _FEWEST_BINS:
        return {}
    return {"max_bin_by_feature": [max(config.max_bin, size + 2, _FEWEST_BINS) for size in sizes]}


def ingest(
    context: WorkerContext, dataset: str, reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig
) -> ShardMatrix:
    """Return the matrix of a shard, binned by the reference. Rows are read once.

    Args:
        context: This worker.
        dataset: Name of the dataset.
        reader: Yields the rows.
        reference: The bins.
        config: Completed with the profile.
    """
    reference = replace(reference, params={"num_threads": context.slot.cpus, **reference.params})
    first = None
    with closing(_Rows(reader, reference, config)) as rows:
        if dataset == TRAIN and context.world_size == 1 and config.trains_as_two and reader.rows > 1:
            count = rows.rows_of_first_group()
            first = rows.bin(count, reference) if count < reader.rows else None
        data = rows.bin(reader.rows - rows.binned, reference)
        return rows.matrix(data, first)


class _Rows:
    """The rows of a shard, which are binned in order, once."""

    def __init__(self, reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig) -> None:
        self._reader, self._reference, self._config = reader, reference, config
        self._batches: Generator[MatrixBatch, None, None] = reader.batches(by_columns=True)
        self._waiting: list[MatrixBatch] = []
        self.binned = 0
        roles = reader.spec.roles
        self._row_ids = None if config.bagging is None else np.empty(reader.rows, dtype=np.int64)
        self._labels = np.empty(reader.rows, dtype=np.float32)
        self._weights = None if roles.weight is None else np.empty(reader.rows, dtype=np.float32)
        self._starts = None if roles.group is None else np.empty(reader.rows, dtype=bool)
        self._scores = empty_scores(reader, reference, config)

    def close(self) -> None:
        """End the pass; the thread that reads ahead for it ends."""
        self._batches.close()

    def rows_of_first_group(self) -> int:
        """Return how many rows the first query group has, or 1 where there are no groups."""
        if self._starts is None:
            return 1
        count = 0
        for batch in self._batches:
            self._waiting.append(batch)
            starts = np.flatnonzero(np.asarray(batch.group_starts))
            later = starts[starts + count > 0]
            if len(later):
                return count + int(later[0])
            count += len(batch.row_ids)
        return count

    def bin(self, rows: int, reference: LibraryReference) -> Any:
        """Return a Dataset of the next rows, or None where there are none."""
        if not rows:
            return None
        part = slice(self.binned, self.binned + rows)
        labels = self._labels[part]
        objective = self._config.objective
        threads = int(reference.params["num_threads"])
        data = load(reference.layout, rows, self._next(rows), reference.data, reference.params, threads)
        data.set_label(labels)
        if objective.counts:
            data.set_field("label", not_all_zero(labels))
        if self._weights is not None:
            weights = self._weights[part]
            data.set_field("weight", not_all_zero(weights) if objective.name == "cross_entropy" else weights)
        if self._scores is not None:
            set_scores(data, self._scores[part])
        if self._starts is not None:
            bounds = np.append(np.flatnonzero(self._starts[part]), rows)
            data.set_group(np.diff(bounds))
        return data

    def _next(self, rows: int) -> Iterator[FeatureColumns]:
        """Yield the features of the next rows, batch by batch."""
        while rows:
            batch = self._waiting.pop(0) if self._waiting else next(self._batches)
            taken = min(len(batch.row_ids), rows)
            self._keep(batch, taken)
            if taken < len(batch.row_ids):
                self._waiting.insert(0, _without(batch, taken))
            rows -= taken
            yield columns_of(batch).between(0, taken)
        if self.binned == self._reader.rows and not self._waiting:
            self._end()

    def _end(self) -> None:
        # The generator ends only when it is asked once more; what it tallies then is the whole pass.
        if (extra := next(self._batches, None)) is not None:
            raise InvalidArgumentError("binning a shard", f"{len(extra.row_ids)} rows came beyond those planned")

    def matrix(self, data: Any, first: Any) -> ShardMatrix:
        """Return what was binned."""
        if not self._reader.rows:
            self._end()
        groups = None
        if self._starts is not None:
            groups = np.append(np.flatnonzero(self._starts), self.binned).astype(np.int64)
        return ShardMatrix(data, first, self._row_ids, self._labels, self._weights, groups)

    def _keep(self, batch: MatrixBatch, taken: int) -> None:
        part = slice(self.binned, self.binned + taken)
        if self._row_ids is not None:
            self._row_ids[part] = batch.row_ids[:taken]
        self._labels[part] = batch.labels[:taken]
        if self._weights is not None and batch.weights is not None:
            self._weights[part] = batch.weights[:taken]
        if self._starts is not None and batch.group_starts is not None:
            self._starts[part] = batch.group_starts[:taken]
        if self._scores is not None:
            self._scores[part] = start_of(batch, self._reference, self._config)[:taken]
        self.binned += taken


def empty_scores(reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig) -> Float64Array | None:
    """Return room for the raw scores that the rows of a shard start from, or None where LightGBM needs none.

    Args:
        reader: Of the shard.
        reference: Has the model to go on from.
        config: Completed with the profile.
    """
    # Without scores, LightGBM starts a tree that cannot be split from its own average of one machine.
    if config.objective.start == "zero" and not (reader.spec.roles.base_margin or reference.earlier):
        return None
    return np.empty((reader.rows, config.objective.classes))


def start_of(batch: MatrixBatch, reference: LibraryReference, config: LightGBMConfig) -> Float64Array:
    """Return the raw scores that rows start from; float64, shape [rows, classes].

    Args:
        batch: The rows.
        reference: Has the model to go on from.
        config: Completed with the profile.
    """
    rows, classes = len(batch.row_ids), config.objective.classes
    scores = np.zeros((rows, classes))
    if batch.base_margin is not None:
        scores += batch.base_margin.reshape(rows, classes)
    elif config.initial_scores:
        scores += config.initial_scores
    if (earlier := reference.earlier) is not None:
        predicted = earlier.predict(columns_of(batch).matrix(), raw_score=True, num_iteration=-1).reshape(rows, classes)
        # The initial scores are in the leaves of the earlier model; those that a column gives are not.
        scores = predicted if batch.base_margin is None else predicted + scores
    return scores


def set_scores(data: Any, scores: Float64Array) -> None:
    """Give a Dataset the raw scores that its rows start from; float64, shape [rows, classes]."""
    data.set_field("init_score", np.ascontiguousarray(scores.T).reshape(-1))


def columns_of(batch: MatrixBatch) -> FeatureColumns:
    """Return the features of a batch that was read by columns.

    Raises:
        InvalidArgumentError: It was read otherwise.
    """
    if batch.columns is None:
        raise InvalidArgumentError("binning a shard", "its rows were not read by columns")
    return batch.columns


def _without(batch: MatrixBatch, rows: int) -> MatrixBatch:
    return MatrixBatch(
        batch.row_ids[rows:],
        batch.features[rows:],
        batch.labels[rows:],
        None if batch.weights is None else batch.weights[rows:],
        None if batch.group_starts is None else batch.group_starts[rows:],
        None if batch.base_margin is None else batch.base_margin[rows:],
        columns=columns_of(batch).between(rows, len(batch.row_ids)),
    )

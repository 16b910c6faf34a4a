"""The XGBoost trainer: each call of the `BinnedTrainer` contract in the library's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost as xgb

from shardfit.binned_trainer import BinnedTrainer, BinReference
from shardfit.columns import ColumnRoles
from shardfit.data_shape import DataShape
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import InvalidArgumentError
from shardfit.matrix_reader import MatrixReader
from shardfit.memory_fit import memory_of
from shardfit.memory_plan import MemoryPart
from shardfit.metrics.early_stopping import check_can_improve
from shardfit.metrics.ranking import RankingMetric
from shardfit.profile import Profile
from shardfit.scaling import WorkerLayout
from shardfit.sparse import features_of
from shardfit.trainer import Checkpoint, RunSettings
from shardfit_xgboost import external_memory, matrix, rendezvous
from shardfit_xgboost.boosting import BoostingLoop
from shardfit_xgboost.config import XGBConfig, configure
from shardfit_xgboost.invariance import invariance_warnings
from shardfit_xgboost.labels import check_labels
from shardfit_xgboost.library_check import check_with_library
from shardfit_xgboost.memory import estimate_memory
from shardfit_xgboost.model import XGBModel
from shardfit_xgboost.resume import check_resume
from shardfit_xgboost.storage import choose_storage, sparse_storage

Float32Array = npt.NDArray[np.float32]


class XGBTrainer(BinnedTrainer):
    """Trains XGBoost boosters on binned shards; the same trees for any number of workers."""

    takes_sparse = True

    def configure(self, params: Mapping[str, Any]) -> XGBConfig:
        """Return the configuration; see `shardfit_xgboost.parameters` for what is refused."""
        return configure(params)

    def check_evals(self, config: XGBConfig, evals: Sequence[str]) -> None:
        """Check that there is something to stop early by."""
        check_can_improve(config.early_stopping_rounds, evals, config.metrics)

    def columns(self, config: XGBConfig, roles: ColumnRoles, schema: pa.Schema) -> ColumnRoles:
        """Return the resolved roles, once XGBoost has accepted the parameters for them."""
        if not roles.label:
            raise InvalidArgumentError("choosing columns", "there is no label column", "Set label_col.")
        if config.objective.ranks and roles.group is None:
            raise InvalidArgumentError(
                f"using objective {config.objective.name!r}",
                "there is no group column",
                "Set group_col to the column whose equal, adjacent values make a query group.",
            )
        grouped = [metric.name for metric in config.metrics if isinstance(metric, RankingMetric)]
        if grouped and roles.group is None:
            raise InvalidArgumentError(
                f"using metric {grouped[0]!r}", "there is no group column", "Set group_col, or choose another metric."
            )
        if len(roles.label) > 1 and (config.objective.classes or config.objective.ranks):
            raise InvalidArgumentError(
                f"using objective {config.objective.name!r}",
                f"there are {len(roles.label)} label columns",
                "Give one label column.",
            )
        if roles.categorical and config.params.get("multi_strategy") == "multi_output_tree":
            raise InvalidArgumentError(
                "using multi_strategy 'multi_output_tree'",
                f"there are categorical columns, {', '.join(map(repr, roles.categorical))}",
                "XGBoost cannot split such trees by category; use 'one_output_per_tree', the default.",
            )
        resolved = super().columns(config, roles, schema)
        check_with_library(config, resolved.features, _sparse_features(resolved, schema))
        return resolved

    def warnings(self, config: XGBConfig, roles: ColumnRoles, layout: WorkerLayout) -> tuple[str, ...]:
        """Name the parameters whose models depend on the number of workers."""
        return invariance_warnings(config, layout.workers, roles.weight is not None)

    def estimate_memory(self, config: XGBConfig, shape: DataShape) -> list[MemoryPart]:
        """Return what the library's memory goes to."""
        return estimate_memory(config, shape)

    def within_memory(self, config: XGBConfig, shape: DataShape, available: int) -> tuple[XGBConfig, str]:
        """Return the configuration with the matrix in memory where it fits there or on GPUs, else on the disk."""
        if shape.values is not None:
            return sparse_storage(config)
        return choose_storage(config, available, lambda tried: memory_of(self, tried, shape).peak, on_gpu=shape.on_gpu)

    def why_no_gpu(self, config: XGBConfig) -> str | None:
        """Return a reason where the matrix is to lie on the disk."""
        on_disk = config.storage.asked == "disk"
        return "CPUs only: with storage='disk' the matrix is read from the local disk by the CPUs." if on_disk else None

    def passes(self, config: XGBConfig) -> int:
        """Return 4, the most: the profile, and the three walks of XGBoost.

        Shards of several batches are read in fewer: 2 where no value is missing, else 3; see `row_stream`. With the
        matrix on the disk it is 3, or 2 where no value is missing.
        """
        return 3 if config.storage.on_disk else 4

    def max_bin(self, config: XGBConfig) -> int:
        """Return the parameter `max_bin`."""
        return config.max_bin

    def missing(self, config: XGBConfig) -> float:
        """Return the parameter `missing`."""
        return config.missing

    def label_terms(
        self, config: XGBConfig, labels: Float32Array, weights: Float32Array | None
    ) -> npt.NDArray[np.float64]:
        """Return what the initial score follows from."""
        return config.objective.terms(labels, weights)

    def check_labels(self, config: XGBConfig, dataset: str, profile: Profile) -> None:
        """Check the labels against the objective."""
        check_labels(config.objective, config.params, dataset, profile)

    def with_profile(self, config: XGBConfig, profile: Profile) -> XGBConfig:
        """Return the configuration with `base_score` set from exact sums, unless it was given."""
        outputs = profile.sample_labels.shape[1]
        start = config.objective.base_score(profile, outputs)
        if "base_score" in config.params:
            return config
        return replace(config, params={**config.params, "base_score": start})

    def check_resume(self, config: XGBConfig, roles: ColumnRoles, checkpoint: Checkpoint) -> None:
        """Check that features, outputs and trees fit."""
        check_resume(config, roles, checkpoint)

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Mapping[str, Any] | None]:
        """Hold a tracker."""
        return rendezvous.tracker(workers)

    def open_reference(
        self, reference: BinReference, config: XGBConfig, settings: RunSettings
    ) -> matrix.LibraryReference:
        """Return a matrix of nothing but cut points."""
        return matrix.open_reference(reference)

    def join(self, context: WorkerContext, meeting: Mapping[str, Any] | None) -> AbstractContextManager[None]:
        """Open the communicator."""
        return rendezvous.communicator(context, meeting)

    def ingest(
        self,
        context: WorkerContext,
        dataset: str,
        reader: MatrixReader,
        reference: matrix.LibraryReference,
        config: XGBConfig,
    ) -> matrix.ShardMatrix:
        """Return a QuantileDMatrix, or one whose bins lie on the disk."""
        ranks = config.objective.ranks or config.custom_objective is not None
        if config.storage.on_disk:
            return external_memory.ingest(reader, reference, context.slot.cpus, ranks, config.storage)
        return matrix.ingest(reader, reference, context.slot.cpus, ranks, on_gpu=context.slot.gpus > 0)

    def library_rows(self, matrix: matrix.ShardMatrix) -> int:
        """Return what XGBoost counts."""
        return int(matrix.data.num_row())

    def fit(
        self,
        context: WorkerContext,
        matrices: Mapping[str, matrix.ShardMatrix],
        config: XGBConfig,
        settings: RunSettings,
        connection: None,
    ) -> XGBModel | None:
        """Boost."""
        with ExitStack() as stack:
            for matrix in matrices.values():
                if matrix.cache is not None:
                    stack.enter_context(matrix.cache.explained())
            return BoostingLoop(context, matrices, config, settings).run()

    def release(self, matrix: matrix.ShardMatrix) -> None:
        """Remove what lies on the disk."""
        if matrix.cache is not None:
            # The library removes its files with its matrix, and complains where they are gone before it.
            with xgb.config_context(verbosity=0):
                matrix.data.__del__()
            matrix.cache.close()

    def collect(self, values: Sequence[XGBModel | None]) -> XGBModel:
        """Return worker 0's model; every worker ends with the same one."""
        (model,) = (value for value in values if value is not None)
        return model

    def save(self, model: XGBModel) -> Mapping[str, bytes]:
        """Return `model.ubj` and `features.json`."""
        return model.files()

    def metadata(self, model: XGBModel) -> Mapping[str, Any]:
        """Return the categories of the columns that have some."""
        return {"category_maps": {name: list(known.values) for name, known in model.spec.categories.items()}}

    def load(self, files: Mapping[str, bytes]) -> XGBModel:
        """Return the model."""
        return XGBModel.from_files(files)

    def predict(self, model: XGBModel, batch: pa.RecordBatch) -> pa.Array:
        """Return predictions of the rounds up to the best one."""
        return model.predict(_booster(model), batch)

    def best_round(self, model: XGBModel) -> int:
        """Return the round at which early stopping found the best value, else the last one."""
        return model.best_iteration

    def input_columns(self, model: XGBModel) -> tuple[str, ...]:
        """Return the features, and the base margins if there were some."""
        return tuple(dict.fromkeys((*model.spec.roles.features, *model.spec.roles.base_margin)))


def _sparse_features(roles: ColumnRoles, schema: pa.Schema) -> int | None:
    return features_of(schema.field(roles.features[0])) if len(roles.features) == 1 else None


@lru_cache(maxsize=1)
def _booster(model: XGBModel) -> xgb.Booster:
    return model.booster()

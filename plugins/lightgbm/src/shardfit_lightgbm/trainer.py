"""The LightGBM trainer: each call of the `BinnedTrainer` contract in the library's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardfit.binned_trainer import BinnedTrainer, BinReference
from shardfit.collectives.contract import Collectives
from shardfit.collectives.meeting import Meeting, meeting_point
from shardfit.columns import ColumnRoles
from shardfit.data_shape import DataShape
from shardfit.engine import WorkerContext, WorkerGroup
from shardfit.errors import InvalidArgumentError
from shardfit.matrix_reader import MatrixReader
from shardfit.memory_plan import MemoryPart
from shardfit.metrics.early_stopping import check_can_improve
from shardfit.metrics.ranking import RankingMetric
from shardfit.profile import Profile
from shardfit.scaling import WorkerLayout
from shardfit.trainer import Checkpoint, RunSettings
from shardfit_lightgbm import kept_matrix, matrix, memory
from shardfit_lightgbm.boosting import BoostingLoop
from shardfit_lightgbm.config import LightGBMConfig, configure
from shardfit_lightgbm.direction import direction
from shardfit_lightgbm.invariance import invariance_warnings
from shardfit_lightgbm.labels import check_labels
from shardfit_lightgbm.library_check import check_with_library
from shardfit_lightgbm.metric_ranking import GroupedNdcg
from shardfit_lightgbm.model import LightGBMModel
from shardfit_lightgbm.resume import check_resume

Float32Array = npt.NDArray[np.float32]

_NO_GPU = (
    "CPUs only: LightGBM trains with CUDA on one machine alone and its packages are built without it, "
    "so that workers are given no GPU."
)


class LightGBMTrainer(BinnedTrainer):
    """Trains LightGBM boosters on binned shards; the same trees for any number of workers."""

    def configure(self, params: Mapping[str, Any]) -> LightGBMConfig:
        """Return the configuration; see `shardfit_lightgbm.parameters` for what is refused."""
        return configure(params)

    def check_evals(self, config: LightGBMConfig, evals: Sequence[str]) -> None:
        """Check that there is something to stop early by."""
        check_can_improve(config.early_stopping_rounds, evals, config.metrics)

    def columns(self, config: LightGBMConfig, roles: ColumnRoles, schema: pa.Schema) -> ColumnRoles:
        """Return the resolved roles, once LightGBM has accepted the parameters for them."""
        if len(roles.label) != 1:
            found = f"there are {len(roles.label)} label columns"
            raise InvalidArgumentError("choosing columns", found, "Set label_col to one column.")
        needs = [f"objective {config.objective.name!r}"] if config.objective.ranks else []
        needs += [
            f"metric {metric.name!r}" for metric in config.metrics if isinstance(metric, RankingMetric | GroupedNdcg)
        ]
        if needs and roles.group is None:
            raise InvalidArgumentError(
                f"using {needs[0]}",
                "there is no group column",
                "Set group_col to the column whose equal, adjacent values make a query group.",
            )
        if roles.base_margin and len(roles.base_margin) != config.objective.classes:
            found = f"there are {len(roles.base_margin)} of them for {config.objective.classes} scores a row"
            raise InvalidArgumentError("reading columns of initial scores", found, "Give one for each.")
        resolved = super().columns(config, roles, schema)
        check_with_library(config, resolved.features)
        return resolved

    def warnings(self, config: LightGBMConfig, roles: ColumnRoles, layout: WorkerLayout) -> tuple[str, ...]:
        """Name the parameters whose models depend on the number of workers."""
        return invariance_warnings(config, layout.workers)

    def check_shape(self, config: LightGBMConfig, shape: DataShape) -> None:
        """Check that no shard has more rows than LightGBM can count."""
        memory.check_shape(shape)

    def why_no_gpu(self, config: LightGBMConfig) -> str:
        """Say what LightGBM cannot do."""
        return _NO_GPU

    def estimate_memory(self, config: LightGBMConfig, shape: DataShape) -> list[MemoryPart]:
        """Return what the library's memory goes to."""
        return memory.estimate_memory(config, shape)

    def passes(self, config: LightGBMConfig) -> int:
        """Return 2: the profile, and the pass that bins."""
        return 2

    def max_bin(self, config: LightGBMConfig) -> int:
        """Return the number of cut points, which leaves one bin for missing values and one for zero."""
        return max(config.max_bin - 2, 2)

    def label_terms(
        self, config: LightGBMConfig, labels: Float32Array, weights: Float32Array | None
    ) -> npt.NDArray[np.float64]:
        """Return what the initial score follows from."""
        return config.objective.terms(labels, weights)

    def check_labels(self, config: LightGBMConfig, dataset: str, profile: Profile) -> None:
        """Check the labels against the objective."""
        check_labels(config.objective, config.params, dataset, profile)

    def with_profile(self, config: LightGBMConfig, profile: Profile) -> LightGBMConfig:
        """Return the configuration with initial scores from exact sums, and what the bins depend on."""
        start = config.objective.initial_scores(profile) if config.starts_from_average else ()
        missing = tuple(bool(count) for count in profile.missing.tolist())
        params = {**config.params, **direction(config.params, config.max_bin, profile)}
        return replace(config, params=params, initial_scores=start, has_missing=missing, rows=profile.rows)

    def check_resume(self, config: LightGBMConfig, roles: ColumnRoles, checkpoint: Checkpoint) -> None:
        """Check that features, classes and rounds fit."""
        check_resume(config, roles, checkpoint)

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Meeting]:
        """Hold a meeting point; LightGBM itself opens no port."""
        return meeting_point(workers)

    def open_reference(
        self, reference: BinReference, config: LightGBMConfig, settings: RunSettings
    ) -> matrix.LibraryReference:
        """Return a Dataset of nothing but cut points."""
        return matrix.open_reference(reference, config, settings)

    def join(self, context: WorkerContext, meeting: Meeting) -> AbstractContextManager[Collectives]:
        """Connect with the other workers."""
        return context.join(meeting)

    def ingest(
        self,
        context: WorkerContext,
        dataset: str,
        reader: MatrixReader,
        reference: matrix.LibraryReference,
        config: LightGBMConfig,
    ) -> matrix.ShardMatrix:
        """Return a Dataset."""
        return matrix.ingest(context, dataset, reader, reference, config)

    def library_rows(self, matrix: matrix.ShardMatrix) -> int:
        """Return what LightGBM counts."""
        return matrix.library_rows

    def kept_bytes(self, config: LightGBMConfig, rows: int, features: int) -> int:
        """Return what LightGBM's binary file takes, and what lies beside it."""
        return kept_matrix.kept_bytes(config, rows, features)

    def bins_depend_on(self, config: LightGBMConfig) -> Mapping[str, Any]:
        """Return the parameters, and what labels are changed for."""
        return kept_matrix.bins_depend_on(config)

    def keep(self, matrix: matrix.ShardMatrix, folder: Path) -> None:
        """Write LightGBM's binary files."""
        kept_matrix.keep(matrix, folder)

    def take_kept(
        self,
        context: WorkerContext,
        dataset: str,
        folder: Path,
        reader: MatrixReader,
        reference: matrix.LibraryReference,
        config: LightGBMConfig,
    ) -> matrix.ShardMatrix:
        """Read them."""
        return kept_matrix.take_kept(context, folder, reader, reference, config)

    def fit(
        self,
        context: WorkerContext,
        matrices: Mapping[str, matrix.ShardMatrix],
        config: LightGBMConfig,
        settings: RunSettings,
        connection: Collectives,
    ) -> LightGBMModel | None:
        """Boost."""
        return BoostingLoop(context, matrices, config, settings, connection).run()

    def collect(self, values: Sequence[LightGBMModel | None]) -> LightGBMModel:
        """Return worker 0's model; every worker ends with the same one."""
        (model,) = (value for value in values if value is not None)
        return model

    def save(self, model: LightGBMModel) -> Mapping[str, bytes]:
        """Return `model.txt` and `features.json`."""
        return model.files()

    def metadata(self, model: LightGBMModel) -> Mapping[str, Any]:
        """Return the categories of the columns that have some."""
        return {"category_maps": {name: list(known.values) for name, known in model.spec.categories.items()}}

    def load(self, files: Mapping[str, bytes]) -> LightGBMModel:
        """Return the model."""
        return LightGBMModel.from_files(files)

    def predict(self, model: LightGBMModel, batch: pa.RecordBatch) -> pa.Array:
        """Return predictions of the rounds up to the best one."""
        return model.predict(_booster(model), batch)

    def best_round(self, model: LightGBMModel) -> int:
        """Return the round at which early stopping found the best value, else the last one."""
        return model.best_round

    def input_columns(self, model: LightGBMModel) -> tuple[str, ...]:
        """Return the features."""
        return model.spec.roles.features


@lru_cache(maxsize=1)
def _booster(model: LightGBMModel) -> Any:
    return model.booster()

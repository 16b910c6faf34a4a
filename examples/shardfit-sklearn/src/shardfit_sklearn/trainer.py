"""The trainer `linear`: each call of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from shardfit import ColumnRoles, Trainer, WorkerContext
from shardfit.collectives import Meeting, meeting_point
from shardfit.engine import WorkerGroup
from shardfit.errors import InvalidArgumentError
from shardfit.shard_reader import ShardReader
from shardfit.trainer import RunSettings
from shardfit_sklearn.config import LinearConfig, configure
from shardfit_sklearn.fitting import Coefficients, Fit
from shardfit_sklearn.model import LinearModel

_NOT_USED = ("group", "base_margin", "categorical")


class LinearTrainer(Trainer):
    """Fits linear and logistic regression to all rows: the same bits at any number of workers, since sums are exact."""

    def configure(self, params: Mapping[str, Any]) -> LinearConfig:
        """Return the configuration."""
        return configure(params)

    def columns(self, config: LinearConfig, roles: ColumnRoles, schema: pa.Schema) -> ColumnRoles:
        """Return the resolved roles: one label, numbers as features."""
        if len(roles.label) != 1:
            raise InvalidArgumentError("choosing columns", f"the label is {roles.label!r}", "Give one label column.")
        for role in _NOT_USED:
            if getattr(roles, role):
                found = f"{role} is {getattr(roles, role)!r}"
                raise InvalidArgumentError("choosing columns", found, "Linear models make no use of it: leave it out.")
        return super().columns(config, roles, schema)

    def passes(self, config: LinearConfig) -> int:
        """Return the passes of the means, the equations and the metrics; for `logistic`, the most that there can be."""
        return 3 if config.estimator != "logistic" else 1 + 2 * config.max_iter

    def rendezvous(self, workers: WorkerGroup) -> AbstractContextManager[Meeting]:
        """Let the workers meet."""
        return meeting_point(workers)

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: LinearConfig,
        settings: RunSettings,
        meeting: Meeting,
    ) -> LinearModel:
        """Fit; every worker ends with the same model."""
        with context.join(meeting) as peers:
            found = Fit(context, peers, shards, config, settings).run()
        return _model(settings.roles, config, found)

    def collect(self, values: Sequence[LinearModel]) -> LinearModel:
        """Return the model."""
        return values[0]

    def save(self, model: LinearModel) -> Mapping[str, bytes]:
        """Return `model.json`."""
        return model.files()

    def load(self, files: Mapping[str, bytes]) -> LinearModel:
        """Return the model."""
        return LinearModel.from_files(files)

    def predict(self, model: LinearModel, batch: pa.RecordBatch) -> pa.Array:
        """Return values, or chances of label 1."""
        return model.predict(batch)

    def input_columns(self, model: LinearModel) -> tuple[str, ...]:
        """Return the features."""
        return model.features


def _model(roles: ColumnRoles, config: LinearConfig, found: Coefficients) -> LinearModel:
    values = tuple(found.values.tolist())
    return LinearModel(roles.features, values, found.intercept, config, found.iterations, found.converged)

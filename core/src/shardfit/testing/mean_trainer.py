"""The smallest trainer that obeys the whole contract: it predicts the mean of the label in each category."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shardfit.columns import ColumnRoles
from shardfit.engine import WorkerContext
from shardfit.errors import UnknownParameterError
from shardfit.exact_sum import ExactSum
from shardfit.names import nearest
from shardfit.shard_reader import ShardReader
from shardfit.trainer import TRAIN, RunSettings, Trainer

Sums = dict[str, tuple[ExactSum, ExactSum]]


@dataclass(frozen=True)
class MeanModel:
    """Means by category.

    Args:
        column: The column that holds the categories.
        means: Category as text -> mean of the label.
        default: What a category gets that was not seen in training.
    """

    column: str
    means: Mapping[str, float]
    default: float


class MeanTrainer(Trainer):
    """Predicts the weighted mean of the label in each category of the first categorical column, or else feature.

    Sums are exact, so that no number of workers moves a bit. Its only parameter is `smoothing`: how many rows with the
    mean of the whole table each category gets on top.
    """

    def configure(self, params: Mapping[str, Any]) -> float:
        """Return the smoothing."""
        for name in params:
            if name != "smoothing":
                advice = f"Did you mean {nearest(name, ['smoothing'])!r}?"
                raise UnknownParameterError("reading the parameters", f"found {name!r}", advice)
        return float(params.get("smoothing", 0.0))

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: float,
        settings: RunSettings,
        meeting: None,
    ) -> tuple[str, float, Sums]:
        """Add up labels and weights by category; read the evaluation sets, of which it makes no use."""
        column, sums = self.column(settings.roles), Sums()
        for dataset, reader in shards.items():
            for batch in reader.batches():
                if dataset == TRAIN:
                    self.add(sums, batch.records, column, settings.roles)
        return column, config, sums

    def collect(self, values: Sequence[tuple[str, float, Sums]]) -> MeanModel:
        """Return the means of all workers' sums."""
        column, smoothing, _ = values[0]
        sums = Sums()
        for _, _, part in values:
            for category, (labels, weights) in part.items():
                known = sums.get(category, (ExactSum(), ExactSum()))
                sums[category] = (known[0] + labels, known[1] + weights)
        labels, weights = (sum((pair[i] for pair in sums.values()), ExactSum()) for i in (0, 1))
        default = labels.total / weights.total
        means = {
            category: (labels.total + smoothing * default) / (weights.total + smoothing)
            for category, (labels, weights) in sorted(sums.items())
        }
        return MeanModel(column, means, default)

    def save(self, model: MeanModel) -> Mapping[str, bytes]:
        """Return `model.json`."""
        content = {"column": model.column, "means": dict(model.means), "default": model.default}
        return {"model.json": json.dumps(content).encode()}

    def load(self, files: Mapping[str, bytes]) -> MeanModel:
        """Return the model."""
        return MeanModel(**json.loads(files["model.json"]))

    def predict(self, model: MeanModel, batch: pa.RecordBatch) -> pa.Array:
        """Return the mean of each row's category."""
        categories = map(str, batch.column(model.column).to_pylist())
        return pa.array([model.means.get(category, model.default) for category in categories], pa.float64())

    def input_columns(self, model: MeanModel) -> tuple[str, ...]:
        """Return the column that holds the categories."""
        return (model.column,)

    def column(self, roles: ColumnRoles) -> str:
        """Return the column that holds the categories."""
        return (roles.categorical or roles.features)[0]

    def add(self, sums: Sums, records: pa.RecordBatch, column: str, roles: ColumnRoles) -> None:
        """Add the rows of one batch to `sums`."""
        labels = records.column(roles.label[0]).to_numpy(zero_copy_only=False).astype(np.float64)
        weights = np.ones(len(labels))
        if roles.weight is not None:
            weights = records.column(roles.weight).to_numpy(zero_copy_only=False).astype(np.float64)
        categories = np.array(list(map(str, records.column(column).to_pylist())))
        for category in np.unique(categories).tolist():
            rows = categories == category
            known = sums.get(category, (ExactSum(), ExactSum()))
            added = ExactSum.of(labels[rows] * weights[rows]), ExactSum.of(weights[rows])
            sums[category] = (known[0] + added[0], known[1] + added[1])


__all__ = ["MeanModel", "MeanTrainer"]

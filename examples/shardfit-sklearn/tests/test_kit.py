"""The trainer `linear` keeps every promise of a trainer."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from shardfit import ColumnRoles
from shardfit.testing import TrainerKit
from shardfit.testing.tables import awkward_table
from shardfit_sklearn.trainer import LinearTrainer

FEATURES = ("drift", "coarse", "normal", "rare")


class Linear(TrainerKit):
    misspelt = ("fit_intercpet", "fit_intercept")

    def make_trainer(self) -> LinearTrainer:
        return LinearTrainer()

    def table(self, rows: int, seed: int) -> pa.Table:
        """The kit's rows without missing values, which linear models do not take."""
        table = awkward_table(rows, seed)
        for name in FEATURES:
            filled = pc.fill_null(table[name], pa.scalar(0, table.schema.field(name).type))
            table = table.set_column(table.schema.get_field_index(name), name, filled)
        return table


class TestRidge(Linear):
    params: ClassVar[dict[str, Any]] = {"estimator": "ridge"}
    columns = ColumnRoles(FEATURES, ("delay",), "weight")
    no_checkpoints = "There is one step: nothing to go on from."


class TestLogistic(Linear):
    params: ClassVar[dict[str, Any]] = {"estimator": "logistic", "max_iter": 20}
    columns = ColumnRoles(FEATURES, ("late",), "weight")

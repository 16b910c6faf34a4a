"""A trained model: a plain XGBoost booster, and what it takes to feed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost as xgb

from shardfit.errors import ArtifactCorruptError, InvalidValueError
from shardfit.matrix_reader import MatrixSpec
from shardfit.saved_spec import predictions_as_arrow, spec_from_values, spec_to_values
from shardfit_xgboost.row_stream import feature_names
from shardfit_xgboost.sparse_stream import as_csr

MODEL_FILE = "model.ubj"
FEATURES_FILE = "features.json"


@dataclass(frozen=True, eq=False)
class XGBModel:
    """A trained model. `booster()` gives the library's own object.

    Args:
        raw: The booster in XGBoost's binary form.
        spec: How rows become the matrix that the booster predicts from.
        objective: Name of the objective, or empty for a function of the user's.
        history: Dataset -> metric -> value after each round.
        best_iteration: Last round that predictions use.
    """

    raw: bytes = field(repr=False)
    spec: MatrixSpec
    objective: str
    history: Mapping[str, Mapping[str, list[float]]]
    best_iteration: int

    def booster(self) -> Any:
        """Return a new `xgboost.Booster`."""
        return xgb.Booster(model_file=bytearray(self.raw))

    def predict(self, booster: Any, records: pa.RecordBatch, threads: int = 0) -> pa.Array:
        """Return one prediction for each row: a number, or a list of fixed size where the model has several outputs.

        Raises:
            InvalidValueError: A feature is infinite, or a base margin is no finite number.
        """
        margins = self.spec.base_margin(records)
        data = self._matrix(records, margins)
        used = (0, self.best_iteration + 1)
        return predictions_as_arrow(booster.predict(data, iteration_range=used))

    def _matrix(self, records: pa.RecordBatch, margins: npt.NDArray[np.float32] | None) -> Any:
        spec = self.spec
        if (rows := spec.encode_sparse(records)) is not None:
            name = spec.roles.features[0]
            _check_values(spec, {name: rows.values}, margins)
            return xgb.DMatrix(as_csr(rows), base_margin=margins)
        features = spec.encode(records)
        _check_values(spec, dict(zip(spec.roles.features, features.T, strict=True)), margins)
        return xgb.DMatrix(features, enable_categorical=True, base_margin=margins, **feature_names(spec))

    def files(self) -> dict[str, bytes]:
        """Return the files that hold the model: `model.ubj`, which XGBoost loads alone, and `features.json`."""
        features = {
            "objective": self.objective,
            **spec_to_values(self.spec),
            "history": self.history,
            "best_iteration": self.best_iteration,
        }
        return {MODEL_FILE: self.raw, FEATURES_FILE: json.dumps(features, indent=1).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> XGBModel:
        """Return the model that `files` wrote.

        Raises:
            ArtifactCorruptError: A file is missing or cannot be read.
        """
        try:
            read = json.loads(files[FEATURES_FILE])
            spec = spec_from_values(read)
            return cls(files[MODEL_FILE], spec, read["objective"], read["history"], read["best_iteration"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactCorruptError("loading an XGBoost model", repr(error), "Train or fetch it again.") from error


def _check_values(
    spec: MatrixSpec, features: Mapping[str, npt.NDArray[np.float32]], margins: npt.NDArray[np.float32] | None
) -> None:
    """Check what XGBoost would refuse without a name, or turn into predictions that are no numbers."""
    bad = [name for name, column in features.items() if np.isinf(column).any()]
    if not bad and margins is not None:
        finite = np.isfinite(margins.reshape(len(margins), -1))
        bad = [name for name, column in zip(spec.roles.base_margin, finite.T, strict=True) if not column.all()]
    if bad:
        raise InvalidValueError(
            f"predicting from column {bad[0]!r}",
            "found an infinite value, one beyond float32, or a base margin that is missing",
            "Filter or fill such rows before predicting.",
        )

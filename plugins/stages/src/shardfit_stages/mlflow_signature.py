"""What goes into a model and comes out of it, in MLflow's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from shardfit.errors import ShardfitError
from shardfit.trainer import Trainer

_COLUMNS = {pa.float32(): "float", pa.float64(): "double"}


def signature_of(trainer: Trainer, model: Any, plan: Mapping[str, Any]) -> ModelSignature:
    """Return the signature of a model: a number for each input column, which may be missing; a category is its code.

    Args:
        trainer: Says which columns the model needs, and predicts.
        model: What the trainer loaded.
        plan: `RunPlan.to_dict()`; has the types of the columns.
    """
    names = trainer.input_columns(model)
    # The types are the library's, which knows codes only: `category_maps` in the manifest turns values into them.
    inputs = Schema([ColSpec("double", name, required=False) for name in names])
    categories = {cast["column"] for cast in plan.get("casts", ()) if cast["rule"] == "category"}
    nothing = pa.record_batch(
        {name: pa.nulls(1, pa.string() if name in categories else pa.float64()) for name in names}
    )
    try:
        kind = trainer.predict(model, nothing).type
    except ShardfitError:
        # Margins, for example, may not be missing.
        return ModelSignature(inputs)
    if pa.types.is_fixed_size_list(kind):
        return ModelSignature(inputs, Schema([TensorSpec(np.dtype("float64"), (-1, kind.list_size), "prediction")]))
    return ModelSignature(inputs, Schema([ColSpec(_COLUMNS.get(kind, "double"), "prediction")]))

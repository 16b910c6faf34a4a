"""How the tests of bad input train: the awkward table, a stage of their own, and everything that a failure leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

from shardfit.connector import DataConnector
from shardfit.errors import ShardfitError
from shardfit.events import Event, RunEnded
from shardfit.run_record import RunRecord, list_records
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import CATEGORICAL, FEATURES
from shardfit_xgboost import XGBEstimator, XGBScalingConfig

Watcher = Callable[[Event], None]

THREADS = ("shardfit-read-ahead", "shardfit-xgboost-tracker", "shardfit-footers")


@dataclass(frozen=True)
class Failure:
    """What a run that failed leaves.

    Args:
        error: What it raised.
        events: What its observer saw.
        record: The only record in its stage.
        artifacts: Everything whole in its stage.
    """

    error: BaseException
    events: list[Event]
    record: RunRecord
    artifacts: list[str]

    @property
    def message(self) -> str:
        return str(self.error)

    @property
    def seen(self) -> set[str]:
        return {event.name for event in self.events}

    @property
    def phases(self) -> set[str]:
        return {event.phase for event in self.events if hasattr(event, "phase")}


def fitted(
    data: object,
    *,
    workers: int = 1,
    cpus: int = 1,
    engine: Literal["auto", "inline", "ray"] | None = None,
    rounds: int = 3,
    stage: Path | None = None,
    evals: object = None,
    columns: dict[str, Any] | None = None,
    **changes: Any,
) -> XGBEstimator:
    """Train on `data`; the columns are those of `awkward_table` but for `columns`, the rest is the estimator's."""
    engine = engine or ("inline" if workers == 1 else "ray")
    estimator = XGBEstimator(
        n_estimators=rounds,
        scaling_config=XGBScalingConfig(workers, cpus, engine=engine),
        artifact_stage_location=None if stage is None else str(stage),
        **{"objective": "binary:logistic", **changes},
    )
    given = {"input_cols": FEATURES, "label_col": "late", "categorical_cols": CATEGORICAL, **(columns or {})}
    estimator.fit(data, eval_set=evals, **given)
    return estimator


def failure(
    data: object,
    stage: Path,
    kind: type[BaseException] = ShardfitError,
    watchers: tuple[Watcher, ...] = (),
    **arguments: Any,
) -> Failure:
    """Train on `data`, which must raise `kind`, and return what that leaves; no model and no thread may be left."""
    events: list[Event] = []
    with pytest.raises(kind) as caught:
        fitted(data, stage=stage, observers=[events.append, *watchers], **arguments)
    assert not shardfit_threads()
    store = LocalStore(stage)
    (record,) = list_records(store)
    artifacts = list(store.list())
    assert not any(name.startswith("model/") for name in artifacts)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].status == record.status
    assert record.error.startswith(type(caught.value).__name__)
    return Failure(caught.value, events, record, artifacts)


def shardfit_threads() -> list[str]:
    """Return the names of the threads that a run starts and should have ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


def with_values(table: pa.Table, column: str, values: object, kind: pa.DataType | None = None) -> DataConnector:
    """Return the table with other values in one column, which is added if it is not there."""
    array = pa.array(values, type=kind)
    if column in table.column_names:
        table = table.set_column(table.column_names.index(column), column, array)
    else:
        table = table.append_column(column, array)
    return DataConnector.from_arrow(table)

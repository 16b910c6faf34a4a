"""What a run says when memory ends or its store goes away, and what becomes of it then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shardfit import resume_run
from shardfit.connector import DataConnector
from shardfit.errors import ArtifactError, InfeasibleRequestError
from shardfit.events import CheckpointFailed, CheckpointStored, Event
from shardfit.run_record import list_records
from shardfit.stores.local import LocalStore
from shardfit.testing.tables import awkward_table
from tests.end_to_end.fitting import failure, fitted

TABLE = awkward_table(1_000)


Away = Callable[[str], bool]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Away], None]:
    """Let the store be unreachable for some artifacts."""

    def apply(is_away: Away) -> None:
        put = LocalStore.put

        def refusing(self: LocalStore, artifact: str, files: Mapping[str, Any], *more: Any, **named: Any) -> Any:
            if is_away(artifact):
                raise ArtifactError(f"putting {artifact!r}", "the store does not answer", "Is it gone?")
            return put(self, artifact, files, *more, **named)

        monkeypatch.setattr(LocalStore, "put", refusing)

    return apply


def test_a_store_that_is_away_for_a_checkpoint_costs_that_checkpoint_and_nothing_else(
    tmp_path: Path, away: Callable[[Away], None]
) -> None:
    away(lambda artifact: "checkpoint-1-2" in artifact)
    events: list[Event] = []
    estimator = fitted(
        DataConnector.from_arrow(TABLE), rounds=6, stage=tmp_path, checkpoint_every_rounds=2, observers=[events.append]
    )
    (failed,) = [event for event in events if isinstance(event, CheckpointFailed)]
    assert failed.step == 2
    assert "the store does not answer" in failed.reason
    assert [event.step for event in events if isinstance(event, CheckpointStored)] == [4, 6]
    assert [text for text in estimator.result.warnings if text.startswith("No checkpoint after 2 rounds")]
    (record,) = list_records(LocalStore(tmp_path))
    assert record.status == "finished"


def test_a_store_that_is_away_at_the_end_leaves_a_run_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: Callable[[Away], None]
) -> None:
    import pyarrow.parquet as pq

    pq.write_table(TABLE, tmp_path / "rows.parquet")
    data = DataConnector.from_parquet(tmp_path / "rows.parquet")
    with monkeypatch.context():
        away(lambda artifact: artifact.startswith("model/"))
        left = failure(data, tmp_path / "stage", ArtifactError, rounds=6, checkpoint_every_rounds=3)
    assert "the store does not answer" in left.message
    assert left.record.status == "failed"
    assert sorted(left.artifacts) == [f"run/{left.record.run_id}/{name}" for name in ("checkpoint-1-6", "record")]
    monkeypatch.undo()
    result = resume_run(left.record.run_id, str(tmp_path / "stage"))
    expected = fitted(data, rounds=6).get_booster().save_raw("json")
    trees = [
        json.loads(raw)["learner"]["gradient_booster"] for raw in (result.model.booster().save_raw("json"), expected)
    ]
    assert trees[0] == trees[1]


def test_a_cluster_that_can_never_hold_the_workers_is_said_at_once(tmp_path: Path, four_processes: Any) -> None:
    with pytest.raises(InfeasibleRequestError, match="placing 9 workers"):
        fitted(DataConnector.from_arrow(TABLE), workers=9, stage=tmp_path)

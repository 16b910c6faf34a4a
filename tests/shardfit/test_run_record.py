"""What a run leaves behind is read back as it was, sorts by time, and holds no secret."""

import json
import string
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import ArtifactCorruptError
from shardfit.run_record import RunRecord, list_records, new_run_id, save_record
from shardfit.stores.local import LocalStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(**fields: Any) -> RunRecord:
    return RunRecord(**{"run_id": "20260102-030405-aa", "attempts": 1, "status": "finished", "trainer": "x", **fields})


def test_run_ids_sort_by_the_time_of_the_start_in_utc() -> None:
    assert new_run_id(NOW, b"\x01\x02\x03\x04") == "20260102-030405000000-01020304"
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert new_run_id(east, bytes(4)) == new_run_id(NOW, bytes(4))
    assert new_run_id(NOW, b"\xff" * 4) < new_run_id(NOW + timedelta(microseconds=1), bytes(4))


def test_a_run_id_needs_a_time_zone_and_entropy() -> None:
    with pytest.raises(ValueError, match="aware"):
        new_run_id(datetime(2026, 1, 1), bytes(8))
    with pytest.raises(ValueError, match="3 bytes"):
        new_run_id(NOW, bytes(3))


_WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)


@given(
    metrics=st.dictionaries(_WORDS, st.lists(st.floats(allow_nan=False), max_size=4), max_size=3),
    warnings=st.lists(_WORDS, max_size=3),
    phases=st.dictionaries(_WORDS, st.floats(0, 1e6), max_size=3),
    status=st.sampled_from(["finished", "failed", "cancelled"]),
)
def test_a_record_goes_to_json_and_back(metrics: Any, warnings: Any, phases: Any, status: Any) -> None:
    made = record(metrics=metrics, warnings=warnings, phases=phases, status=status, coverage={"train": "3:ff"})
    assert RunRecord.from_json(made.to_json()) == made


def test_a_metric_that_is_no_number_survives_json() -> None:
    read = RunRecord.from_json(record(metrics={"auc": [float("nan"), 0.5]}).to_json())
    assert str(read.metrics["auc"]) == "[nan, 0.5]"
    assert read.final_metrics == {"auc": 0.5}


def test_secrets_in_the_error_do_not_reach_the_record() -> None:
    text = record(status="failed", error="cannot open s3://me:hunter2@bucket").to_json()
    assert "hunter2" not in text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 2}'])
def test_a_torn_record_is_corrupt(text: str) -> None:
    with pytest.raises(ArtifactCorruptError):
        RunRecord.from_json(text)


def test_a_record_of_an_unknown_status_is_corrupt_and_fields_of_later_versions_are_left_out() -> None:
    content = json.loads(record().to_json())
    assert RunRecord.from_json(json.dumps({**content, "later": 1})).run_id == record().run_id
    with pytest.raises(ArtifactCorruptError, match="exploded"):
        RunRecord.from_json(json.dumps({**content, "status": "exploded"}))


def test_records_are_listed_the_oldest_first_and_broken_ones_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path)
    ids = [new_run_id(NOW + timedelta(days=day), bytes(4)) for day in (2, 0, 1)]
    for run_id in ids:
        assert save_record(store, record(run_id=run_id)) == f"run/{run_id}/record"
        store.put(f"run/{run_id}/checkpoint-1-1", {"f": b""})
    (Path(store.address(f"run/{ids[0]}/record")) / "record.json").write_text("{")
    assert [found.run_id for found in list_records(store)] == [ids[1], ids[2]]
    assert ids[0] in caplog.text

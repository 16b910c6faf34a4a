from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from examples.flights import data as demo
from examples.flights import pytorch as pytorch_demo
from examples.flights.__main__ import HELD_OUT_MONTH, main
from examples.flights.data import CATEGORICAL, FEATURES, LABEL, make_table, prepare, read_flights, read_planes
from examples.flights.show import code_that_loads
from examples.flights.training import PARAMS, PATIENCE, ROUNDS, fit_with_shardfit, make_estimator
from shardfit import Job

SAMPLE_ROWS = 1_500


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    return read_flights()


@pytest.fixture(scope="module")
def table(flights: pa.Table) -> pa.Table:
    return make_table(flights, read_planes())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    prepare(folder, HELD_OUT_MONTH)
    return folder


def test_flights_that_never_arrived_are_left_out(flights: pa.Table, table: pa.Table) -> None:
    assert flights.num_rows == 336_776
    assert table.num_rows == 336_776 - flights["arr_delay"].null_count


def test_late_means_more_than_fifteen_minutes(flights: pa.Table, table: pa.Table) -> None:
    delays = flights["arr_delay"].drop_null().to_pylist()
    assert table[LABEL].to_pylist() == [int(delay > 15) for delay in delays]


def test_features_do_not_change_with_what_happened_after_the_schedule_was_made(flights: pa.Table) -> None:
    some = flights.slice(0, 1_000)
    other = some
    for name in ("dep_time", "dep_delay", "arr_time", "air_time"):
        other = other.set_column(other.column_names.index(name), name, pa.nulls(1_000, pa.int64()))
    assert make_table(some, read_planes()) == make_table(other, read_planes())
    assert LABEL not in FEATURES


def test_the_weekday_is_that_of_the_calendar(table: pa.Table) -> None:
    days = table.select(["month", "day", "weekday"]).group_by(["month", "day", "weekday"]).aggregate([]).to_pylist()
    assert len(days) == 365
    assert all(datetime.date(2013, day["month"], day["day"]).weekday() == day["weekday"] for day in days)


def test_flights_of_an_unknown_plane_have_no_year_of_manufacture(flights: pa.Table) -> None:
    planes = read_planes()
    known = set(planes["tailnum"].to_pylist())
    some = flights.filter(pc.is_valid(flights["arr_delay"])).slice(0, 500)
    seats = make_table(some, planes)["plane_seats"].to_pylist()
    assert [value is None for value in seats] == [tail not in known for tail in some["tailnum"].to_pylist()]


def test_the_held_out_month_is_in_no_file_that_is_trained_on(prepared: Path, table: pa.Table) -> None:
    train, held_out = (pq.read_table(prepared / name) for name in ("train", "held_out"))
    assert set(held_out["month"].to_pylist()) == {HELD_OUT_MONTH}
    assert set(train["month"].to_pylist()) == set(range(1, 13)) - {HELD_OUT_MONTH}
    assert train.num_rows + held_out.num_rows == table.num_rows


@pytest.fixture
def sampled(prepared: Path, tmp_path: Path) -> Path:
    """A folder for a demo that finds flights in it, but not many."""
    for path in prepared.rglob("*.parquet"):
        sample = tmp_path / "flights" / path.relative_to(prepared)
        sample.parent.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(path)
        pq.write_table(rows.take(list(range(0, rows.num_rows, rows.num_rows // SAMPLE_ROWS))), sample)
    return tmp_path


def test_the_demo_of_pytorch_shows_both_models(sampled: Path) -> None:
    shown = io.StringIO()
    network, trees = pytorch_demo.main(sampled, Console(file=shown, width=160))
    for part in ("handed over", "Log-loss by epoch", str(sampled / "stage")):
        assert part in shown.getvalue()
    assert network.auc > 0.55
    assert trees.auc > 0.6


def test_the_demo_shows_the_plan_both_models_and_where_the_model_is(sampled: Path) -> None:
    shown = io.StringIO()
    ours, theirs = main(sampled, Console(file=shown, width=160))
    text = shown.getvalue()
    for part in ("Plan", "each row exactly once", "plain xgboost", "Most important features", str(sampled / "stage")):
        assert part in text
    assert ours.auc > 0.6
    assert ours.auc == pytest.approx(theirs.auc, abs=0.01)
    assert ours.log_loss == pytest.approx(theirs.log_loss, abs=0.01)


def test_the_code_that_the_demo_shows_loads_the_model_that_it_trained(prepared: Path, tmp_path: Path) -> None:
    held_out = prepared / "held_out"
    estimator = make_estimator(tmp_path, rounds=3)
    fit_with_shardfit(estimator, held_out, held_out, verbose_eval=0)
    names: dict[str, Any] = {}
    exec(code_that_loads(tmp_path, estimator.result.run_id), names)
    assert names["booster"].save_raw("ubj") == estimator.get_booster().save_raw("ubj")


def test_the_job_file_asks_for_what_the_demo_trains() -> None:
    job = Job.from_toml(Path(demo.__file__).with_name("job.toml"))
    assert job.params == {**PARAMS, "n_estimators": ROUNDS, "early_stopping_rounds": PATIENCE}
    assert (job.columns.label, job.columns.categorical) == ((LABEL,), CATEGORICAL)

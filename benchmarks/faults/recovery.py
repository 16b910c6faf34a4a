"""Where the seconds go between a killed worker and training again: on a cluster of three hosts, phase by phase.

    sudo python -m benchmarks.faults.recovery --rows 2000000

One worker is killed in the fifth round; its node stays, so that every worker of the next attempt has the shard that it
had. LightGBM does it twice: with bins that are kept on the disks of the nodes, and without.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scripts import faults
from scripts.cluster import HostCluster, three_host_cluster, why_impossible
from shardfit import Job, train
from shardfit.engines.ray import RayEngine
from shardfit.events import BinsKept, BinsTaken, Event, Progress

FEATURES, ROW_GROUP = 28, 50_000
_KILLED_AFTER, _ROUNDS = 5, 12
_CASES = (("xgboost", "never"), ("lightgbm", "never"), ("lightgbm", "auto"))
_PARAMS = {
    "xgboost": {"n_estimators": _ROUNDS, "objective": "binary:logistic", "max_depth": 6},
    "lightgbm": {"num_iterations": _ROUNDS, "objective": "binary", "num_leaves": 31},
}


def write_table(path: Path, rows: int) -> None:
    """Write a table of 28 features, row group by row group."""
    draw = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, ROW_GROUP):
        count = min(ROW_GROUP, rows - start)
        values = draw.normal(size=(FEATURES, count)).astype(np.float32)
        label = (values[0] * values[1] + values[2] + draw.normal(size=count) > 0).astype(np.int8)
        table = pa.table({**{f"f{number:02d}": values[number] for number in range(FEATURES)}, "label": label})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=ROW_GROUP)
    assert writer is not None
    writer.close()


class Timeline:
    """An observer that kills a worker once and notes when everything happened."""

    def __init__(self) -> None:
        self.group: Any = None
        self.killed = 0.0
        self.seen: list[tuple[float, int, str]] = []
        self.kept: list[BinsKept] = []
        self.taken = 0

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        self.mark(event.attempt, f"Progress {event.phase}" if isinstance(event, Progress) else event.name)
        self.taken += isinstance(event, BinsTaken)
        if isinstance(event, BinsKept):
            self.kept.append(event)
        if event.name == "MetricsReported" and not self.killed and getattr(event, "round", -1) == _KILLED_AFTER:
            self.killed = time.time()
            faults.kill(self.group._places[2].pid)

    def mark(self, attempt: int, name: str) -> None:
        """Note that something happened now."""
        self.seen.append((time.time(), attempt, name))

    def seconds(self, attempt: int, name: str, last: bool = False) -> float:
        """Return when something happened first, or last, in an attempt, in seconds since the kill."""
        times = [at for at, number, seen in self.seen if (number, seen) == (attempt, name)]
        return times[-1 if last else 0] - self.killed


def _job(trainer: str, keep_bins: str, folder: Path) -> Job:
    fields: dict[str, Any] = {
        "trainer": trainer,
        "data": str(folder / "rows.parquet"),
        "columns": {"label": "label"},
        "params": _PARAMS[trainer],
        "engine": "ray",
        "workers": 3,
        "cpus_per_worker": 1,
        "stage": str(folder / "stage"),
        "checkpoint_every_rounds": 2,
        "keep_bins": keep_bins,
    }
    return Job(**fields)


def recovery(trainer: str, keep_bins: str, folder: Path) -> dict[str, float]:
    """Return the seconds since the kill at which each step of the recovery ended, and what keeping bins took."""
    timeline = Timeline()
    start = RayEngine.start

    def spied_start(self: RayEngine, layout: Any, *more: Any) -> Any:
        timeline.group = start(self, layout, *more)
        timeline.mark(more[0], "started")
        return timeline.group

    RayEngine.start = spied_start  # type: ignore[method-assign, assignment]
    try:
        begun = time.time()
        result = train(_job(trainer, keep_bins, folder), observers=[timeline])
    finally:
        RayEngine.start = start  # type: ignore[method-assign]
    assert result.attempts == 2
    ends = {
        "noticed": timeline.seconds(1, "WorkerLost"),
        "planned": timeline.seconds(2, "PlanMade"),
        "started": timeline.seconds(2, "started"),
        "profiled": timeline.seconds(2, "ProfileMade"),
        "binned": timeline.seconds(2, "Progress ingest", last=True),
        "trained a round": timeline.seconds(2, "MetricsReported"),
    }
    whole = timeline.seconds(1, "MetricsReported") + timeline.killed - begun
    return {
        **{name: round(value, 2) for name, value in ends.items()},
        "first attempt to its first round": round(whole, 2),
        "seconds of keeping, most of a worker": round(max((event.seconds for event in timeline.kept), default=0), 3),
        "MiB kept": round(sum(event.bytes for event in timeline.kept) / 2**20, 1),
        "shards taken up": timeline.taken,
    }


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=2, help="the first also imports and fills caches")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        cluster = HostCluster(**json.loads(given.inside))
        for _ in range(given.repeats):
            for trainer, keep_bins in _CASES:
                found = recovery(trainer, keep_bins, Path(cluster.folder))
                print(json.dumps({"trainer": trainer, "keep_bins": keep_bins, **found}), flush=True)
        return 0
    if (reason := why_impossible()) is not None:
        sys.exit(f"A cluster of three hosts is not possible here; {reason}.")
    with three_host_cluster(cpus=1) as cluster:
        write_table(Path(cluster.folder) / "rows.parquet", given.rows)
        inside = ["--inside", json.dumps(asdict(cluster)), "--repeats", str(given.repeats)]
        print(cluster.run([sys.executable, "-m", "benchmarks.faults.recovery", *inside]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trains under a hard limit of memory from a table at least 8 x as large, and shows who is killed by it.

sudo python -m benchmarks.larger_than_memory                          all parts
sudo python -m benchmarks.larger_than_memory --only shardfit          one; the others keep what was measured before
sudo python -m benchmarks.larger_than_memory --limit 512M --rows 5400000

The parts: `unlimited` (shardfit without the limit), `shardfit`, `plain_xgboost` (pandas), `xgboost_dask`, `ray_train`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import replace_between
from benchmarks.task import LABEL, Task, read_report
from scripts.memory_group import memory_group, read_size, why_impossible
from shardfit.local_disk import scratch_folder

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "larger-than-memory.json"
PAGE = ROOT / "docs" / "memory.md"
MARKERS = ("<!-- measured: python -m benchmarks.larger_than_memory -->", "<!-- end of larger than memory -->")
TITLES = {
    "unlimited": "**shardfit** without the limit",
    "shardfit": "**shardfit**",
    "plain_xgboost": "pandas and plain XGBoost",
    "xgboost_dask": "xgboost.dask, 2 workers",
    "ray_train": "Ray Train, 2 workers",
}
PARTS = {
    "unlimited": "shardfit_inline",
    "shardfit": "shardfit_inline",
    "plain_xgboost": "plain_xgboost",
    "xgboost_dask": "xgboost_dask",
    "ray_train": "ray_train",
}
COLUMNS, FILES, GROUP_ROWS = 100, 8, 20_000
ROW_BYTES = 8 * COLUMNS + 1
LIMIT_S = 900.0


def make_table(folder: Path, rows: int) -> Path:
    """Write the table under `folder` unless it is there, and return its folder: float64 columns in 8 files.

    Args:
        folder: Made when missing.
        rows: Number of rows, dealt evenly to the files.
    """
    place = folder / f"larger-{rows}"
    place.mkdir(parents=True, exist_ok=True)
    for file in range(FILES):
        path = place / f"part-{file}.parquet"
        if path.exists():
            continue
        making = path.with_suffix(".making")
        size = rows * (file + 1) // FILES - rows * file // FILES
        with pq.ParquetWriter(making, _group(0, (file, 0)).schema) as writer:
            for start in range(0, size, GROUP_ROWS):
                writer.write_table(_group(min(GROUP_ROWS, size - start), (file, start)))
        making.rename(path)
    return place


def _group(rows: int, seed: tuple[int, int]) -> pa.Table:
    random = np.random.default_rng(seed)
    columns = {f"f{j:03d}": random.standard_normal(rows) for j in range(COLUMNS)}
    score = columns["f000"] + np.abs(columns["f001"]) * columns["f002"] + random.standard_normal(rows)
    return pa.table({**columns, LABEL: (score > 0).astype(np.int8)})


def run_part(part: str, train: Path, limit: int, rounds: int) -> dict[str, Any]:
    """Run one part and return how it ended: exit status, seconds, processes killed, peak of the group.

    Args:
        part: One of `PARTS`.
        train: Folder of the table.
        limit: Bytes that all processes of the part may have together; not for `unlimited`.
        rounds: Boosting rounds.
    """
    unlimited = 2**50
    # On a disk: what lies in memory would count. The path is short, since Ray makes sockets below it.
    with (
        TemporaryDirectory(prefix="shardfit-larger-", dir=scratch_folder()) as scratch,
        memory_group(unlimited if part == "unlimited" else limit) as group,
    ):
        task = Task(train, Path(scratch) / "model.ubj", Path(scratch), rounds, 2)
        command = [sys.executable, "-m", f"benchmarks.contestants.{PARTS[part]}", *task.to_command_line()]
        environ = {**os.environ, "TMPDIR": scratch, "OMP_NUM_THREADS": "2", "RAY_ADDRESS": "local"}
        began = time.perf_counter()
        with (Path(scratch) / "output.txt").open("w+") as output:
            process = group.start(command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT)
            status = _wait(process, group, part)
            seconds = time.perf_counter() - began
            output.seek(0)
            told = output.read()
        phases = {} if status else read_report(told)
        return {
            "status": status,
            "seconds": round(seconds, 1),
            "phases": {phase: round(took, 1) for phase, took in phases.items()},
            "killed": group.kills,
            "peak_bytes": group.peak,
            "output": told[-500:] if status else "",
        }


def _wait(process: Any, group: Any, part: str) -> int | str:
    until = time.monotonic() + LIMIT_S
    while process.poll() is None:
        # Ray and Dask start killed processes again and again; what the kernel has killed once is shown to die.
        if time.monotonic() > until or (group.kills and part in {"xgboost_dask", "ray_train"}):
            group.stop()
            return "killed by the limit" if group.kills else f"no end after {LIMIT_S:.0f} s"
        time.sleep(0.2)
    return int(process.returncode)


def render(record: dict[str, Any]) -> str:
    """Return the table of all parts that were measured, as Markdown."""
    lines = ["| who | ended | seconds | killed by the kernel | peak MiB, page cache too |", "|---|---|---|---|---|"]
    for part, found in record["parts"].items():
        ended = (
            "trained" if found["status"] == 0 else f"{'killed' if found['killed'] else 'failed'} ({found['status']})"
        )
        peak = found["peak_bytes"] / 2**20
        lines.append(f"| {TITLES[part]} | {ended} | {found['seconds']:.0f} | {found['killed']} | {peak:,.0f} |")
    ratio = record["decoded_bytes"] / record["limit"]
    limit = f"the limit of {record['limit'] / 2**20:,.0f} MiB"
    table = f"{record['rows']:,} rows x {COLUMNS} float64 columns, {ratio:.1f} x {limit} once decoded"
    lines += ["", f"{table}; {record['rounds']} rounds."]
    parts = record["parts"]
    if all(parts.get(name, {}).get("status") == 0 for name in ("unlimited", "shardfit")):
        slower = parts["shardfit"]["seconds"] / parts["unlimited"]["seconds"]
        lines.append(f"Under the limit shardfit takes {slower:.2f} x the time that it takes without.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and write down how they ended; 1 where shardfit did not train."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.larger_than_memory", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "make"], help="parts to run (all); `make` is the table")
    parser.add_argument("--limit", type=read_size, default=2**30, help="bytes of memory, 1G, 512M (%(default)s)")
    parser.add_argument("--rows", type=int, default=10_750_000, help="rows of the table (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="boosting rounds (%(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench", help="folder of the generated table (.bench)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results are written")
    options = parser.parse_args(arguments)
    if (reason := why_impossible()) is not None:
        parser.error(f"memory cannot be limited here; {reason}")
    train = make_table(options.data, options.rows)
    facts = {"rows": options.rows, "decoded_bytes": options.rows * ROW_BYTES, "limit": options.limit}
    facts["rounds"] = options.rounds
    record: dict[str, Any] = {**facts, "parts": {}}
    if options.output.exists():
        earlier = json.loads(options.output.read_text())
        # What was measured with other figures is no part of this table.
        record["parts"] = earlier["parts"] if {name: earlier[name] for name in facts} == facts else {}
    for part in [name for name in options.only or PARTS if name != "make"]:
        found = run_part(part, train, options.limit, options.rounds)
        print(f"{part}: {found}", flush=True)
        # What it wrote names this machine's folders.
        record["parts"][part] = {name: value for name, value in found.items() if name != "output"}
        record["parts"] = {name: record["parts"][name] for name in PARTS if name in record["parts"]}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    table = render(record)
    print(table)
    if options.output == RESULTS:
        PAGE.write_text(replace_between(PAGE.read_text(), *MARKERS, table))
    return int(record["parts"].get("shardfit", {"status": 0})["status"] != 0)


if __name__ == "__main__":
    sys.exit(main())

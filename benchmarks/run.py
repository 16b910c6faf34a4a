"""Runs the contestants side by side: wall time by phase, peak memory of all processes, AUC on rows that none has seen.

python -m benchmarks.run --framework xgboost --rows 4000000 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.make_table import make_table
from benchmarks.process_watch import MARKER, ProcessWatch
from benchmarks.report import Measurement, render, summarize, update_readme
from benchmarks.task import LABEL, Task, read_report

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = {
    "xgboost": (
        "shardfit_inline",
        "shardfit_ray",
        "plain_xgboost",
        "xgboost_dask",
        "ray_train",
        "ray_train_polled",
    ),
    "lightgbm": (
        "shardfit_lightgbm_inline",
        "shardfit_lightgbm_ray",
        "plain_lightgbm",
        "lightgbm_dask",
        "ray_train_lightgbm",
    ),
    "pytorch": (
        "shardfit_pytorch_inline",
        "shardfit_pytorch_ray",
        "plain_pytorch",
        "ddp_in_memory",
        "ray_train_pytorch",
    ),
}
# Boosting rounds, or epochs.
ROUNDS = {"xgboost": 30, "lightgbm": 30, "pytorch": 1}
MODELS = {"xgboost": "model.ubj", "lightgbm": "model.txt", "pytorch": "model.pt"}
CORES = 2
# Where each framework's table stands between its markers.
PAGES = {
    "xgboost": ROOT / "README.md",
    "lightgbm": ROOT / "docs" / "lightgbm.md",
    "pytorch": ROOT / "docs" / "pytorch_data.md",
}


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000, help="rows to train on (%(default)s)")
    parser.add_argument("--rounds", type=int, help="boosting rounds (30), or epochs (1)")
    parser.add_argument("--repeats", type=int, default=3, help="times that each contestant runs (%(default)s)")
    parser.add_argument("--framework", choices=CONTESTANTS, default="xgboost", help="which table (%(default)s)")
    parser.add_argument("--only", nargs="+", help="contestants to run (all of the framework)")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a run hangs (%(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / ".bench", help="folder of the generated table (.bench)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--update-readme", action="store_true", help="put the table into its page")
    options = parser.parse_args(arguments)
    known = CONTESTANTS[options.framework]
    options.only = options.only or known
    options.rounds = options.rounds or ROUNDS[options.framework]
    if unknown := sorted(set(options.only) - set(known)):
        parser.error(f"there is no contestant {unknown[0]!r}; there are {', '.join(known)}")
    return options


def run_contestant(name: str, task: Task, limit: float) -> Measurement:
    """Run one contestant once in a process of its own and measure it; what it leaves running is killed.

    Args:
        name: A module of `benchmarks.contestants`.
        task: What to train.
        limit: Seconds after which it counts as hanging.
    """
    run = uuid.uuid4().hex
    command = [sys.executable, "-m", f"benchmarks.contestants.{name}", *task.to_command_line()]
    # A Ray of its own, also where another one runs on this machine: only its processes are counted.
    environment = {**os.environ, MARKER: run, "OMP_NUM_THREADS": str(task.cores), "RAY_ADDRESS": "local"}
    began = time.perf_counter()
    failure, phases = "", {}
    with ProcessWatch(run) as watch, (task.scratch / "output.txt").open("w+") as output:
        contestant = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = contestant.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code, failure = -1, f"hung: no end after {limit:.0f} s"
        wall = time.perf_counter() - began
        watch.kill()
        contestant.wait()
        output.seek(0)
        text = output.read()
    if code == 0:
        phases = read_report(text)
    elif not failure:
        failure = f"exit code {code}: {text[-1000:]}"
    return Measurement(name, wall, watch.peak_bytes, phases, failure)


def hold_to_cores(count: int) -> None:
    """Hold this process, and all that it starts, to `count` cores, so that every machine measures the same."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def measure_all(options: argparse.Namespace, train: Path, held_out: Path) -> list[Measurement]:
    """Run every contestant `repeats` times, interleaved, each round beginning with another one."""
    for path in (*train.iterdir(), held_out):
        path.read_bytes()  # Into the page cache, or whoever runs first pays for the disk.
    measurements = []
    names = list(options.only)
    for repeat in range(options.repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            with TemporaryDirectory(prefix="shardfit-benchmark-") as scratch:
                model = Path(scratch) / MODELS[options.framework]
                task = Task(train, model, Path(scratch), options.rounds, CORES)
                measurement = run_contestant(name, task, options.limit)
                if not measurement.failure:
                    measurement = measurement.with_auc(area_under_curve(options.framework, model, held_out))
            print(measurement.line(), flush=True)
            measurements.append(measurement)
    return measurements


def area_under_curve(framework: str, model: Path, held_out: Path) -> float:
    """Return the AUC of a saved model on the held-out file."""
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    table = pd.read_parquet(held_out)
    rows = table.drop(columns=LABEL).to_numpy()
    return float(roc_auc_score(table[LABEL], _scores(framework, model, rows)))


def _scores(framework: str, model: Path, rows: Any) -> Any:
    if framework == "lightgbm":
        import lightgbm as lgb

        return lgb.Booster(model_file=model).predict(rows)
    if framework == "pytorch":
        from benchmarks.pytorch_task import scores

        return scores(model, rows)
    import xgboost as xgb

    booster = xgb.Booster(model_file=model)
    # The order of the columns is that of the file; a contestant that renames them is still the same model.
    booster.feature_names = None
    return booster.predict(xgb.DMatrix(rows))


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures depend on."""
    library = "torch" if options.framework == "pytorch" else options.framework
    packages = (library, "ray", "dask", "pyarrow", "pandas", "shardfit", f"shardfit-{options.framework}")
    return {
        "framework": options.framework,
        "rows": options.rows,
        "rounds": options.rounds,
        "repeats": options.repeats,
        "cores": CORES,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the table, run the contestants, write JSON and Markdown; 1 when a contestant failed."""
    options = parse_options(arguments)
    hold_to_cores(CORES)
    train, held_out = make_table(options.data, options.rows)
    facts = describe(options)
    measurements = measure_all(options, train, held_out)
    table = render(facts, summarize(measurements))
    options.output.mkdir(parents=True, exist_ok=True)
    record = {**facts, "runs": [measurement.to_dict() for measurement in measurements]}
    prefix = "" if options.framework == "xgboost" else f"{options.framework}-"
    (options.output / f"{prefix}rows-{options.rows}.json").write_text(json.dumps(record, indent=2) + "\n")
    (options.output / f"{prefix}table.md").write_text(table)
    if options.update_readme:
        update_readme(PAGES[options.framework], table)
    print(table)
    return int(any(measurement.failure for measurement in measurements))


if __name__ == "__main__":
    sys.exit(main())

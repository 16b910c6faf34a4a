"""Measures which options of a booster give the same model at any number of workers, and writes the tables.

python -m benchmarks.invariance                        every option: inline against 2 and 4 workers
python -m benchmarks.invariance --trainer lightgbm     those of one library
python -m benchmarks.invariance --large                a large run of each: inline against 1, 2 and 4 Ray workers
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import xgboost as xgb

from benchmarks import invariance_cases, invariance_lightgbm_cases
from benchmarks.invariance_cases import invariance_table
from benchmarks.invariance_findings import Finding, Library, case_job, compare, render, update_page
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.job import Job
from shardfit.testing.ray_cluster import ray_cluster
from shardfit.testing.tables import CATEGORICAL, FEATURES, write_unevenly
from shardfit.testing.worker_threads import train_on_threads
from shardfit.train import train
from shardfit_lightgbm import invariance as lightgbm_warnings
from shardfit_xgboost import invariance as xgboost_warnings

ROOT = Path(__file__).resolve().parent.parent
WORKERS = (2, 4)


def xgboost_parts(model: Any) -> tuple[str, ...]:
    """Return the trees of an XGBoost model as JSON, then how they are put together and the initial score."""
    learner = json.loads(model.booster().save_raw("json"))["learner"]
    booster = learner["gradient_booster"]
    inner = booster.get("gbtree", booster)["model"]
    trees = [json.dumps(tree) for tree in inner.pop("trees")]
    return (*trees, json.dumps([booster, learner["learner_model_param"]["base_score"]]))


def lightgbm_parts(model: Any) -> tuple[str, ...]:
    """Return the trees of a LightGBM model as text, then everything else."""
    head, *trees = re.split(r"^Tree=", model.text, flags=re.MULTILINE)
    last, end, rest = trees.pop().partition("end of trees")
    return (*trees, last, head + end + rest)


XGBOOST = Library(
    trainer="xgboost",
    name=f"XGBoost {xgb.__version__}",
    page=ROOT / "docs" / "invariance.md",
    cases=invariance_cases.cases(),
    params={"max_depth": 5},
    parts=xgboost_parts,
    consequence=xgboost_warnings.CONSEQUENCE,
    custom=xgboost_warnings.CUSTOM,
)
LIGHTGBM = Library(
    trainer="lightgbm",
    name=f"LightGBM {lgb.__version__}",
    page=ROOT / "docs" / "invariance_lightgbm.md",
    cases=invariance_lightgbm_cases.cases(),
    params={},
    parts=lightgbm_parts,
    consequence=lightgbm_warnings.CONSEQUENCE,
    custom=lightgbm_warnings.CUSTOM,
)
LIBRARIES = {library.trainer: library for library in (XGBOOST, LIGHTGBM)}


def measure(library: Library, rows: int, only: str) -> Iterator[Finding]:
    """Yield what is found for each case whose name contains `only`; the workers are threads."""
    table = invariance_table(rows)
    evaluation = table.slice(0, rows // 10)
    with TemporaryDirectory() as stage:
        for case in library.cases:
            if only in case.name:
                job = case_job(library, case, table, evaluation, engine="inline", stage=stage)
                others = [train_on_threads(job, workers) for workers in WORKERS]
                yield compare(library, case, train(job), others, table)


def measure_large(library: Library, rows: int, rounds: int) -> bool:
    """Train one large model inline and on 1, 2 and 4 Ray workers; return whether all are the same."""
    roles = ColumnRoles(FEATURES, ("late",), "weight", categorical=CATEGORICAL)
    params: dict[str, Any] = {"n_estimators": rounds, "learning_rate": 0.1, "early_stopping_rounds": 20}
    binary = {"xgboost": "binary:logistic", "lightgbm": "binary"}[library.trainer]
    loss = {"xgboost": "logloss", "lightgbm": "binary_logloss"}[library.trainer]
    params |= {"objective": binary, "metric" if library is LIGHTGBM else "eval_metric": ["auc", loss]}
    alone, same = None, True
    with cluster(4), TemporaryDirectory() as folder:
        files = write_unevenly(invariance_table(rows), Path(folder, "train"))
        held_out = DataConnector.from_arrow(invariance_table(rows // 10, seed=1))
        for workers, engine in ((1, "inline"), (1, "ray"), (2, "ray"), (4, "ray")):
            given: dict[str, Any] = {"data": files, "evals": {"eval": held_out}, "columns": roles, "params": params}
            given |= {"workers": workers, "cpus_per_worker": 1, "engine": engine, "stage": f"{folder}/stage"}
            job = Job(trainer=library.trainer, **given)
            result = train(job)
            found = (library.parts(result.model), dict(result.metrics), result.trainer.best_round(result.model))
            alone = alone or found
            same = same and found == alone
            differ = sum(a != b for a, b in zip(found[0], alone[0], strict=False))
            last = {name: values[-1] for name, values in result.metrics.items()}
            seconds = sum(result.phases.values())
            print(f"{library.name}, {engine}, {workers} workers: {differ} of {len(found[0]) - 1} trees differ, "
                  f"metrics {'same' if found[1] == alone[1] else 'OTHER'}, best {found[2]}, {last}, {seconds:.0f} s",
                  flush=True)  # fmt: skip
    return same


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Hold a Ray cluster of its own, also where the machine has fewer CPUs or another cluster."""
    import ray

    before = os.environ.get("RAY_ADDRESS")
    with ray_cluster(cpus, {"PYTHONPATH": str(ROOT)}) as address:
        os.environ["RAY_ADDRESS"] = address
        try:
            yield
        finally:
            ray.shutdown()
            if before is None:
                del os.environ["RAY_ADDRESS"]
            else:
                os.environ["RAY_ADDRESS"] = before


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invariance", description=__doc__)
    parser.add_argument("--trainer", choices=sorted(LIBRARIES), action="append", help="measure this library alone")
    parser.add_argument("--rows", type=int, default=20_000, help="rows to train on (%(default)s)")
    parser.add_argument("--only", default="", help="measure the cases whose names contain this, and write no page")
    parser.add_argument("--large", action="store_true", help="one large run instead: 1 M rows, 100 rounds")
    return parser.parse_args(arguments)


def measure_all(library: Library, rows: int, only: str) -> bool:
    """Measure, print, write the page; return whether the plan's warnings tell the truth."""
    findings = []
    for finding in measure(library, rows, only):
        findings.append(finding)
        wrong = "" if finding.as_announced else "  THE PLAN'S WARNINGS SAY OTHERWISE"
        print(f"{library.trainer}, {finding.case.name}: {finding.size} {finding.reason}{wrong}", flush=True)
    if not only:
        versions = f"{library.name}, {rows:,} rows, 8 rounds, inline against 2 and 4 workers that are threads."
        update_page(library.page, f"{versions}\n\n{render(findings)}")
    return all(finding.as_announced for finding in findings)


def main() -> int:
    """Do it; fail where a warning of the plan does not tell the truth, or a large model is another one."""
    options = parse_options()
    libraries = [LIBRARIES[name] for name in options.trainer or LIBRARIES]
    if options.large:
        told = [measure_large(library, 1_000_000, 100) for library in libraries]
    else:
        told = [measure_all(library, options.rows, options.only) for library in libraries]
    return 0 if all(told) else 1


if __name__ == "__main__":
    sys.exit(main())

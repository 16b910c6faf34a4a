"""Measures which options of the XGBoost plugin give the same model at any number of workers, and writes the table.

python -m benchmarks.invariance             every option: inline against 2 and 3 Ray workers
python -m benchmarks.invariance --large     one large run: inline against 1, 2 and 4 Ray workers
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xgboost as xgb

from benchmarks.invariance_cases import Case, cases, invariance_table
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.job import Job
from shardfit.run import TrainResult
from shardfit.testing.ray_cluster import ray_cluster
from shardfit.testing.tables import CATEGORICAL, FEATURES, write_unevenly
from shardfit.train import train
from shardfit_xgboost.invariance import CONSEQUENCE, CUSTOM

PAGE = Path(__file__).resolve().parent.parent / "docs" / "invariance.md"
BEGIN, END = "<!-- table: python -m benchmarks.invariance -->", "<!-- end of table -->"
WORKERS = (2, 3)
TITLES = {"booster": "Boosters", "objective": "Objectives", "ranking": "Ranking", "sampling": "Sampling"}

Verdict = Literal["exact", "made exact", "not"]


@dataclass(frozen=True)
class Finding:
    """What was found for one case.

    Args:
        case: What was trained.
        verdict: Whether every model was the same, byte for byte, and the metrics the same bits.
        difference: Largest difference of two predictions of a row, relative to their standard deviation.
        reason: What makes it exact or, from the plan's warning, why it is not.
        as_announced: Whether the plan warned if and only if the models differ.
    """

    case: Case
    verdict: Verdict
    difference: float
    reason: str
    as_announced: bool


def case_job(case: Case, table: object, evaluation: object, rounds: int = 8, **changes: Any) -> Job:
    """Return the job of one case."""
    params = {"n_estimators": rounds, "max_depth": 5, **case.params}
    evals = {"eval": evaluation}
    given: dict[str, Any] = {
        "trainer": "xgboost",
        "data": table,
        "evals": evals,
        "columns": case.roles,
        "params": params,
        **changes,
    }
    return Job(**given)


def compare(case: Case, alone: TrainResult, others: Sequence[TrainResult], rows: pa.Table) -> Finding:
    """Return how the models of several workers differ from the one of a single worker.

    Args:
        case: What was trained.
        alone: Of one worker.
        others: Of several.
        rows: What to predict.
    """
    same = all(model_bytes(other) == model_bytes(alone) for other in others)
    same = same and all(dict(other.metrics) == dict(alone.metrics) for other in others)
    expected, *found = (predictions(result, rows) for result in (alone, *others))
    difference = max(float(np.abs(other - expected).max()) for other in found) / float(expected.std() or 1)
    warnings = [text for text in others[0].warnings if text.endswith(CONSEQUENCE) or text == CUSTOM]
    reason = "; ".join(text.removesuffix(CONSEQUENCE) for text in warnings)
    # A custom objective may or may not be exact: its warning says so.
    announced = same != bool(warnings) or warnings == [CUSTOM]
    if not same:
        return Finding(case, "not", difference, reason, announced)
    return Finding(case, "made exact" if case.made_by else "exact", difference, case.made_by, announced)


def model_bytes(result: TrainResult) -> tuple[str, str]:
    """Return the trees and the initial score of a model, as JSON."""
    learner = json.loads(result.model.booster().save_raw("json"))["learner"]
    return json.dumps(learner["gradient_booster"]), learner["learner_model_param"]["base_score"]


def predictions(result: TrainResult, rows: pa.Table) -> Any:
    """Return the predictions of a model, as one array."""
    records = rows.combine_chunks().to_batches()[0]
    return np.array(result.trainer.predict(result.model, records).to_pylist())


def render(findings: Sequence[Finding]) -> str:
    """Return the findings as Markdown tables, one for each kind."""
    lines: list[str] = []
    for kind in dict.fromkeys(finding.case.kind for finding in findings):
        lines += ["", f"### {TITLES.get(kind, 'Other options')}", "", "| what | | how, or why not |", "|---|---|---|"]
        for finding in findings:
            if finding.case.kind == kind:
                verdict = finding.verdict if finding.verdict != "not" else f"**not**: {finding.difference:.2f}"
                lines.append(f"| {finding.case.name} | {verdict} | {finding.reason} |")
    return "\n".join(lines).strip() + "\n"


def update_page(page: Path, table: str) -> None:
    """Put the table between the two markers of the page.

    Raises:
        ValueError: A marker is missing.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} needs the markers {BEGIN!r} and {END!r}")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")


def measure(rows: int, only: str) -> Iterator[Finding]:
    """Yield what is found for each case whose name contains `only`."""
    table = invariance_table(rows)
    evaluation = table.slice(0, rows // 10)
    with cluster(max(WORKERS)), TemporaryDirectory() as stage:
        for case in cases():
            if only not in case.name:
                continue
            places = [(1, "inline"), *((workers, "ray") for workers in WORKERS)]
            results = [
                train(case_job(case, table, evaluation, workers=n, cpus_per_worker=1, engine=engine, stage=stage))
                for n, engine in places
            ]
            yield compare(case, results[0], results[1:], table)


def measure_large(rows: int, rounds: int) -> bool:
    """Train one large model inline and on 1, 2 and 4 Ray workers; return whether all are the same."""
    roles = ColumnRoles(FEATURES, ("late",), "weight", categorical=CATEGORICAL)
    params: dict[str, Any] = {
        "objective": "binary:logistic",
        "n_estimators": rounds,
        "learning_rate": 0.1,
        "early_stopping_rounds": 20,
    }
    params |= {"eval_metric": ["auc", "logloss"]}
    alone, same = None, True
    with cluster(4), TemporaryDirectory() as folder:
        files = write_unevenly(invariance_table(rows), Path(folder, "train"))
        held_out = DataConnector.from_arrow(invariance_table(rows // 10, seed=1))
        for workers, engine in ((1, "inline"), (1, "ray"), (2, "ray"), (4, "ray")):
            given: dict[str, Any] = {"data": files, "evals": {"eval": held_out}, "columns": roles, "params": params}
            given |= {"workers": workers, "cpus_per_worker": 1, "engine": engine, "stage": f"{folder}/stage"}
            job = Job(trainer="xgboost", **given)
            result = train(job)
            found = (model_bytes(result), dict(result.metrics), result.model.best_iteration)
            alone = alone or found
            same = same and found == alone
            last = {name: values[-1] for name, values in result.metrics.items()}
            seconds = sum(result.phases.values())
            print(f"{engine}, {workers} workers: {'same' if found == alone else 'OTHER'} model and metrics, "
                  f"{result.model.booster().num_boosted_rounds()} rounds, best {found[2]}, {last}, {seconds:.0f} s",
                  flush=True)  # fmt: skip
    return same


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Hold a Ray cluster of its own, also where the machine has fewer CPUs or another cluster."""
    import ray

    before = os.environ.get("RAY_ADDRESS")
    with ray_cluster(cpus, {"PYTHONPATH": str(PAGE.parent.parent)}) as address:
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
    parser.add_argument("--rows", type=int, default=20_000, help="rows to train on (%(default)s)")
    parser.add_argument("--only", default="", help="measure the cases whose names contain this, and write no page")
    parser.add_argument("--large", action="store_true", help="one large run instead: 1 M rows, 100 rounds")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes (%(default)s)")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, print, write the page; fail where a warning of the plan does not tell the truth."""
    options = parse_options()
    if options.large:
        return 0 if measure_large(1_000_000, 100) else 1
    findings = []
    for finding in measure(options.rows, options.only):
        findings.append(finding)
        wrong = "" if finding.as_announced else "  THE PLAN'S WARNINGS SAY OTHERWISE"
        print(f"{finding.case.name}: {finding.verdict} {finding.difference:.3g} {finding.reason}{wrong}", flush=True)
    if not options.only:
        versions = f"XGBoost {xgb.__version__}, {options.rows:,} rows, 8 rounds, inline against 2 and 3 Ray workers."
        update_page(options.page, f"{versions}\n\n{render(findings)}")
    return 0 if all(finding.as_announced for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())

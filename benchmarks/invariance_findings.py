"""How models of several workers are compared with the one of a single worker, and how the findings are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.invariance_cases import Case
from shardfit.job import Job
from shardfit.run import TrainResult

BEGIN, END = "<!-- table: python -m benchmarks.invariance -->", "<!-- end of table -->"
TITLES = {"booster": "Boosters", "objective": "Objectives", "ranking": "Ranking", "sampling": "Sampling"}

Verdict = Literal["exact", "made exact", "not"]


@dataclass(frozen=True)
class Library:
    """A library whose options are measured.

    Args:
        trainer: Its trainer.
        name: What it is called, with its version.
        page: Where its table goes.
        cases: What is trained.
        params: Of every case that does not say otherwise.
        parts: Returns the trees of a model, and last whatever else it predicts from.
        consequence: How the plan's warnings end that name an option.
        custom: The plan's warning about a function of the user's.
    """

    trainer: str
    name: str
    page: Path
    cases: tuple[Case, ...]
    params: Mapping[str, Any]
    parts: Callable[[Any], tuple[str, ...]]
    consequence: str
    custom: str


@dataclass(frozen=True)
class Finding:
    """What was found for one case.

    Args:
        case: What was trained.
        verdict: Whether every model was the same, byte for byte, and the metrics the same bits.
        difference: Largest difference of two predictions of a row, relative to their standard deviation.
        trees: Trees that differ, of all trees of a model.
        metric: Largest difference of a metric after the last round, relative to its value.
        reason: What makes it exact or, from the plan's warning, why it is not.
        as_announced: Whether the plan warned if and only if the models differ.
    """

    case: Case
    verdict: Verdict
    difference: float
    trees: str
    metric: float
    reason: str
    as_announced: bool

    @property
    def size(self) -> str:
        """The verdict as the table has it."""
        if self.verdict != "not":
            return self.verdict
        return f"**not**: {self.difference:.2f}; {self.trees}; {self.metric:.1%}"


def case_job(library: Library, case: Case, table: object, evaluation: object, rounds: int = 8, **changes: Any) -> Job:
    """Return the job of one case."""
    given: dict[str, Any] = {
        "trainer": library.trainer,
        "data": table,
        "evals": {"eval": evaluation},
        "columns": case.roles,
        "params": {"n_estimators": rounds, **library.params, **case.params},
        **changes,
    }
    return Job(**given)


def compare(library: Library, case: Case, alone: TrainResult, others: Sequence[TrainResult], rows: pa.Table) -> Finding:
    """Return how the models of several workers differ from the one of a single worker.

    Args:
        library: What trained them.
        case: What was trained.
        alone: Of one worker.
        others: Of several.
        rows: What to predict.
    """
    expected = library.parts(alone.model)
    found = [library.parts(other.model) for other in others]
    same = all(parts == expected for parts in found)
    same = same and all(dict(other.metrics) == dict(alone.metrics) for other in others)
    predicted, *more = (predictions(result, rows) for result in (alone, *others))
    difference = max(float(np.abs(other - predicted).max()) for other in more) / float(predicted.std() or 1)
    differ = max(sum(a != b for a, b in zip(expected[:-1], parts, strict=False)) for parts in found)
    metric = max(_metric_difference(alone, other) for other in others)
    warnings = [text for text in others[0].warnings if text.endswith(library.consequence) or text == library.custom]
    reason = case.made_by if same else "; ".join(text.removesuffix(library.consequence) for text in warnings)
    # A custom objective may or may not be exact: its warning says so.
    announced = same != bool(warnings) or warnings == [library.custom]
    verdict: Verdict = "not" if not same else "made exact" if case.made_by else "exact"
    trees = f"{differ} of {len(expected) - 1} trees"
    return Finding(case, verdict, difference, trees, metric, reason, announced)


def predictions(result: TrainResult, rows: pa.Table) -> Any:
    """Return the predictions of a model, as one array."""
    records = rows.combine_chunks().to_batches()[0]
    return np.array(result.trainer.predict(result.model, records).to_pylist())


def _metric_difference(alone: TrainResult, other: TrainResult) -> float:
    last = {name: values[-1] for name, values in alone.metrics.items()}
    return max((abs(other.metrics[name][-1] / value - 1) for name, value in last.items() if value), default=0.0)


def render(findings: Sequence[Finding]) -> str:
    """Return the findings as Markdown tables, one for each kind."""
    lines: list[str] = []
    for kind in dict.fromkeys(finding.case.kind for finding in findings):
        lines += ["", f"### {TITLES.get(kind, 'Other options')}", "", "| what | | how, or why not |", "|---|---|---|"]
        for finding in findings:
            if finding.case.kind == kind:
                lines.append(f"| {finding.case.name} | {finding.size} | {finding.reason} |")
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

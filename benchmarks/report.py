"""From measurements to medians, ratios and the Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Self

TITLES = {
    "shardfit_inline": "**shardfit**, inline",
    "shardfit_ray": "**shardfit**, 2 Ray workers",
    "plain_xgboost": "plain xgboost (pandas, DMatrix)",
    "xgboost_dask": "xgboost.dask, 2 workers",
    "ray_train": "Ray Train XGBoostTrainer, 2 workers",
    "ray_train_polled": "Ray Train, polling for reports every 0.1 s (default: 2 s)",
    "shardfit_lightgbm_inline": "**shardfit**, inline",
    "shardfit_lightgbm_ray": "**shardfit**, 2 Ray workers",
    "plain_lightgbm": "plain lightgbm (Arrow table)",
    "lightgbm_dask": "lightgbm.dask, 2 workers",
    "ray_train_lightgbm": "Ray Train LightGBMTrainer, 2 workers",
    "shardfit_pytorch_inline": "**shardfit**, inline",
    "shardfit_pytorch_ray": "**shardfit**, 2 Ray workers",
    "plain_pytorch": "a loop by hand over decoded row groups",
    "ddp_in_memory": "bare DDP, 2 processes, tensors in memory",
    "ray_train_pytorch": "Ray Train TorchTrainer, 2 workers, iter_torch_batches",
}
# What a table says of its models.
SIZES = {
    "xgboost": "{} rounds, depth 6",
    "lightgbm": "{} rounds, 63 leaves",
    "pytorch": "{} epoch, layers of 128, 64 and 1, batches of 1,024 a rank",
}
COMPARISONS = (
    ("shardfit_inline", "plain_xgboost"),
    ("shardfit_ray", "xgboost_dask"),
    ("shardfit_ray", "ray_train"),
    ("shardfit_ray", "ray_train_polled"),
    ("shardfit_lightgbm_inline", "plain_lightgbm"),
    ("shardfit_lightgbm_ray", "lightgbm_dask"),
    ("shardfit_lightgbm_ray", "ray_train_lightgbm"),
    ("shardfit_pytorch_inline", "plain_pytorch"),
    ("shardfit_pytorch_ray", "ddp_in_memory"),
    ("shardfit_pytorch_ray", "ray_train_pytorch"),
)
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one contestant, or the medians of several.

    Args:
        name: The contestant.
        wall: Seconds from starting its process to its end.
        peak_bytes: Peak of the sum of the PSS of all its processes.
        phases: Phase -> seconds, as the contestant says.
        failure: Why it failed, or empty.
        auc: AUC on the held-out rows.
    """

    name: str
    wall: float
    peak_bytes: int
    phases: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    auc: float = float("nan")

    def with_auc(self, auc: float) -> Self:
        """Return the measurement with its AUC."""
        return replace(self, auc=auc)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, where nan does not exist."""
        return {**asdict(self), "phases": dict(self.phases), "auc": None if self.failure else self.auc}

    def line(self) -> str:
        """Return the measurement as a line of text."""
        if self.failure:
            return f"{self.name}: FAILED, {self.failure}"
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.phases.items())
        return f"{self.name}: {self.wall:.1f} s ({phases}), {self.peak_bytes / 1e6:,.0f} MB, AUC {self.auc:.5f}"


def summarize(measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    """Return contestant -> medians of its runs that did not fail, or one failed run where all did."""
    runs: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        runs.setdefault(measurement.name, []).append(measurement)
    return {name: _medians([run for run in group if not run.failure]) or group[0] for name, group in runs.items()}


def _medians(runs: Sequence[Measurement]) -> Measurement | None:
    if not runs:
        return None
    phases = {phase: median(run.phases[phase] for run in runs) for phase in runs[0].phases}
    peak = int(median(run.peak_bytes for run in runs))
    return Measurement(
        runs[0].name, median(run.wall for run in runs), peak, phases, auc=median(run.auc for run in runs)
    )


def render(facts: Mapping[str, Any], medians: Mapping[str, Measurement]) -> str:
    """Return the Markdown table, with a sentence on how it was measured and one for each comparison.

    Args:
        facts: `rows`, `rounds`, `repeats`, `cores`, `versions`.
        medians: Contestant -> medians.
    """
    names = [name for name in TITLES if name in medians]
    lines = ["| | wall s | of it data / train | peak MB | AUC |", "|---|---:|---:|---:|---:|"]
    lines += [_row(TITLES[name], medians[name]) for name in names]
    lines += ["", *_comparisons(medians)]
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    lines += [
        "",
        f"{facts['rows']:,} rows x 28 float32 features in 8 Parquet files, "
        f"{SIZES[facts.get('framework', 'xgboost')].format(facts['rounds'])}, "
        f"{facts['cores']} cores in all for each; medians of {facts['repeats']} interleaved runs, processes started "
        "and stopped each time. Memory is the peak of the sum of the PSS of all processes of a run. AUC is of "
        f"200,000 rows that none has seen. {versions}. `make bench` measures it again.",
    ]
    return "\n".join(lines) + "\n"


def _row(title: str, run: Measurement) -> str:
    if run.failure:
        return f"| {title} | failed | | | |"
    data, train = run.phases.get("data", float("nan")), run.phases.get("train", float("nan"))
    return f"| {title} | {run.wall:.1f} | {data:.1f} / {train:.1f} | {run.peak_bytes / 1e6:,.0f} | {run.auc:.5f} |"


def _comparisons(medians: Mapping[str, Measurement]) -> list[str]:
    pairs = ((medians.get(ours), medians.get(theirs)) for ours, theirs in COMPARISONS)
    return [
        f"* {TITLES[ours.name]} takes {ours.wall / theirs.wall:.2f} x the wall time and "
        f"{ours.peak_bytes / theirs.peak_bytes:.2f} x the memory of {TITLES[theirs.name]}."
        for ours, theirs in pairs
        if ours and theirs and not ours.failure and not theirs.failure
    ]


def update_readme(readme: Path, table: str) -> None:
    """Put the table between the two markers of the README.

    Raises:
        ValueError: A marker is missing.
    """
    readme.write_text(replace_between(readme.read_text(), BEGIN, END, table.rstrip("\n")))


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """Return `text` with `content` between two markers, each on a line of its own.

    Args:
        text: A page.
        begin: What comes before the content.
        end: What comes after it.
        content: Lines.

    Raises:
        ValueError: A marker is missing.
    """
    head, found, rest = text.partition(begin)
    _, last, tail = rest.partition(end)
    if not found or not last:
        raise ValueError(f"the page does not have the markers {begin!r} and {end!r}")
    return f"{head}{begin}\n{content}\n{end}{tail}"

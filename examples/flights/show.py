"""What the demo prints."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from examples.flights.data import LABEL
from examples.flights.training import PARAMS, Scores
from shardfit.events import Event, PlanMade
from shardfit_xgboost import XGBEstimator


def data(console: Console, train: Path, held_out: Path) -> None:
    """Show what there is to train and to evaluate on, and the first rows."""
    table = Table("", "files", "rows", "late", title="Flights that arrived; late means by more than 15 minutes")
    for name, folder in (("train", train), ("held-out month", held_out)):
        labels = pq.read_table(folder, columns=[LABEL])[LABEL].to_numpy()
        table.add_row(name, str(len(list(folder.iterdir()))), f"{len(labels):,}", f"{labels.mean():.1%}")
    console.print(table)
    rows = pq.read_table(held_out).slice(0, 3)
    first = Table(
        "column", "type", *("one flight" for _ in range(rows.num_rows)), title="What is known before departure"
    )
    for field in rows.schema:
        name = f"{field.name} (the answer)" if field.name == LABEL else field.name
        first.add_row(name, str(field.type), *(str(value) for value in rows[field.name].to_pylist()))
    console.print(first)


class PlanShown:
    """Shows the plan as soon as it is made, before a worker starts: an observer of the run's events.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: Event) -> None:
        """Show the event if it is the plan."""
        if not isinstance(event, PlanMade):
            return
        table = Table("dataset", "rows", "shard plan", title=f"Plan: {event.workers} worker(s)")
        for name, rows in event.rows.items():
            table.add_row(name, f"{rows:,}", event.digests[name][:16])
        self._console.print(table)
        for reason in (*event.reasons, *event.warnings):
            self._console.print(f"  {reason}", highlight=False)


def result(console: Console, estimator: XGBEstimator) -> None:
    """Show what the run says of itself: phases, and the proof that each row was used once."""
    run = estimator.result
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.phases.items())
    memory = run.plan.memory.peak / 1e6
    console.print(f"Run [bold]{run.run_id}[/bold]: {phases}")
    console.print(f"  {run.plan.passes} passes over the data, planned for {memory:,.0f} MB a worker")
    for name, coverage in run.coverage.items():
        verdict = "[green]each row exactly once[/green]" if coverage.exact else "[red]rows lost or repeated[/red]"
        console.print(f"  {name}: {coverage.planned.rows:,} planned, {coverage.handed.rows:,} trained: {verdict}")


def scores(
    console: Console, ours: Scores, theirs: Scores, names: tuple[str, str] = ("shardfit", "plain xgboost")
) -> None:
    """Show both models' scores on the held-out month side by side."""
    table = Table("held-out month", "AUC", "log-loss", "rounds", title=f"max_depth {PARAMS['max_depth']}, same rows")
    for name, one in zip(names, (ours, theirs), strict=True):
        table.add_row(name, f"{one.auc:.4f}", f"{one.log_loss:.4f}", str(one.rounds))
    table.add_row("difference", f"{ours.auc - theirs.auc:+.4f}", f"{ours.log_loss - theirs.log_loss:+.4f}", "")
    console.print(table)


def importance(console: Console, estimator: XGBEstimator, most: int = 8) -> None:
    """Show the features that the splits gain most from."""
    rounds = estimator.result.model.best_iteration + 1
    gain = estimator.get_booster()[:rounds].get_score(importance_type="total_gain")
    total = sum(gain.values())
    table = Table("feature", "share of the gain", "", title="Most important features")
    for name, value in sorted(gain.items(), key=lambda item: -item[1])[:most]:
        table.add_row(name, f"{value / total:.1%}", "█" * round(40 * value / total))
    console.print(table)


def stage(console: Console, estimator: XGBEstimator, location: Path) -> None:
    """Show where the model and the run's record are, and how to load the model again."""
    run = estimator.result
    for kind, artifact in (("Model ", f"model/{run.run_id}"), ("Record", f"run/{run.run_id}/record")):
        console.print(f"{kind}  {run.store.address(artifact)}", soft_wrap=True, highlight=False)
        for stored in run.store.manifest(artifact).files:
            console.print(
                f"        {stored.name}, {stored.size:,} bytes, SHA-256 {stored.sha256[:12]}", highlight=False
            )
    console.print("\nTo load it anywhere, checked against its digest (model.ubj is XGBoost's own format):\n")
    console.print(Syntax(code_that_loads(location, run.run_id), "python", background_color="default"), soft_wrap=True)
    console.print("The same as a job file: .venv/bin/shardfit plan examples/flights/job.toml", highlight=False)


def code_that_loads(location: Path, run_id: str) -> str:
    """Return Python code that loads a run's model as `booster`.

    Args:
        location: The stage.
        run_id: Identifier of the run.
    """
    return f"""\
import xgboost
from shardfit import default_registry

store = default_registry().open_store({str(location)!r})
booster = xgboost.Booster(model_file=bytearray(store.read("model/{run_id}", "model.ubj")))
"""

"""The demo: a plan, training with early stopping on a held-out month, and plain XGBoost beside it.

python -m examples.flights
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from examples.flights import show
from examples.flights.data import prepare
from examples.flights.training import Scores, fit_with_shardfit, make_estimator, score_plain_xgboost, score_shardfit

HELD_OUT_MONTH = 6


def main(folder: Path = Path(".demo"), console: Console | None = None) -> tuple[Scores, Scores]:
    """Run the demo and show every step.

    Args:
        folder: Where the flights and the stage go; made when missing.
        console: Where to write; the terminal if None.

    Returns:
        The scores of shardfit's model, and of plain XGBoost's.
    """
    console = console or Console()
    data, stage = folder / "flights", folder / "stage"

    console.rule("[bold]1. The data")
    with timed(console, "336,776 flights, one Parquet file a month"):
        train, held_out = prepare(data, HELD_OUT_MONTH)
    show.data(console, train, held_out)

    console.rule("[bold]2. The plan, then training")
    estimator = make_estimator(stage, observers=[show.PlanShown(console)])
    with timed(console, "planned and trained"):
        fit_with_shardfit(estimator, train, held_out)
    show.result(console, estimator)

    console.rule("[bold]3. The same parameters in plain XGBoost, on the same rows")
    with timed(console, "predicted with shardfit, trained and predicted with plain XGBoost"):
        ours, theirs = score_shardfit(estimator, held_out), score_plain_xgboost(train, held_out)
    show.scores(console, ours, theirs)

    console.rule("[bold]4. What matters, and where the model is")
    show.importance(console, estimator)
    show.stage(console, estimator, stage)
    return ours, theirs


@contextmanager
def timed(console: Console, what: str) -> Iterator[None]:
    """Say how long something took, once it is done."""
    began = time.perf_counter()
    yield
    console.print(f"[dim]{what}: {time.perf_counter() - began:.1f} s[/dim]")


if __name__ == "__main__":
    main()

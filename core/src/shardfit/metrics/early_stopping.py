"""When to stop early: a frozen state that each round's score moves on, as `xgboost.callback.EarlyStopping` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardfit.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop once so many rounds in a row brought no better score. Equal scores decide equally on every worker.

    Args:
        rounds: How many rounds without improvement end the training; 1 or more.
        maximize: Whether larger scores are better.
        min_delta: By how much more than this a score must be better to count; 0 or more.
        best_round: Round of the best score so far, None before the first.
        best_score: The best score so far, None before the first.
        rounds_without: How many rounds in a row brought no improvement.

    Raises:
        InvalidArgumentError: `rounds` is below 1, or `min_delta` is negative or not a number.
    """

    rounds: int
    maximize: bool
    min_delta: float = 0.0
    best_round: int | None = None
    best_score: float | None = None
    rounds_without: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.min_delta >= 0:
            raise InvalidArgumentError(
                "setting early stopping",
                f"rounds={self.rounds!r}, min_delta={self.min_delta!r}",
                "rounds must be 1 or more, min_delta 0 or more.",
            )

    @property
    def stop(self) -> bool:
        """Whether training should end now."""
        return self.rounds_without >= self.rounds

    def update(self, round: int, score: float) -> EarlyStopping:
        """Return the state after a round.

        The first score counts as an improvement whatever it is; a nan never does later.

        Args:
            round: Its number; kept as `best_round` if the score is the best.
            score: The value of the metric that decides.
        """
        if self.best_score is None or self._improves(score, self.best_score):
            return replace(self, best_round=round, best_score=score, rounds_without=0)
        return replace(self, rounds_without=self.rounds_without + 1)

    def _improves(self, score: float, best: float) -> bool:
        return score - self.min_delta > best if self.maximize else best - self.min_delta > score


def check_can_improve(rounds: int | None, evals: Sequence[str], metrics: Sequence[object]) -> None:
    """Check that there is something to stop early by. Called on the driver.

    Args:
        rounds: How many without improvement end the training, or None.
        evals: Names of the evaluation sets.
        metrics: Evaluated on each of them.

    Raises:
        InvalidArgumentError: There is no evaluation set, or no metric.
    """
    if rounds is None or (evals and metrics):
        return
    missing = "metric" if evals else "evaluation set"
    raise InvalidArgumentError(
        f"stopping early after {rounds} rounds without improvement",
        f"there is no {missing} to improve",
        "Pass eval_set, and a metric unless the objective's own will do; or leave early_stopping_rounds out.",
    )

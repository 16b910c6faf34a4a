"""When to stop early: the rule of `lightgbm.early_stopping`, on values that are the same on every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shardfit.metrics import EarlyStopping, Metric

Key = tuple[str, str]


@dataclass(frozen=True)
class StoppingRule:
    """Stops as soon as one metric on one evaluation set has not improved for so many rounds.

    Args:
        states: (dataset, metric) -> its state, in the order of evaluation.
    """

    states: Mapping[Key, EarlyStopping]

    @classmethod
    def of(
        cls, rounds: int, min_delta: float, first_only: bool, datasets: Sequence[str], metrics: Sequence[Metric]
    ) -> StoppingRule:
        """Return the rule before the first round.

        Args:
            rounds: Rounds without improvement that end the training, 1 or more.
            min_delta: By how much a score must be better to count.
            first_only: Whether the first metric of each dataset alone counts.
            datasets: Names of the evaluation sets.
            metrics: Evaluated on each.
        """
        counted = metrics[:1] if first_only else metrics
        return cls({(name, m.name): EarlyStopping(rounds, m.maximize, min_delta) for name in datasets for m in counted})

    def update(self, round: int, values: Mapping[Key, float]) -> StoppingRule:
        """Return the state after a round.

        Args:
            round: Its number.
            values: (dataset, metric) -> value; those that do not count may be among them.
        """
        return replace(self, states={key: state.update(round, values[key]) for key, state in self.states.items()})

    @property
    def stop(self) -> bool:
        """Whether training should end now."""
        return any(state.stop for state in self.states.values())

    @property
    def decisive(self) -> EarlyStopping | None:
        """The state that ends the training, else the first; None before the first round."""
        first = next(iter(self.states.values()), None)
        return next((state for state in self.states.values() if state.stop), first)

"""The fits: normal equations in one pass, logistic regression by Newton's method, one pass a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from shardfit import WorkerContext
from shardfit.collectives.contract import Collectives
from shardfit.errors import InvalidValueError
from shardfit.shard_reader import ShardReader
from shardfit.trainer import TRAIN, RunSettings
from shardfit_sklearn.config import LinearConfig
from shardfit_sklearn.rows import Column, Rows, read_rows
from shardfit_sklearn.state import NewtonState
from shardfit_sklearn.sums import RowSums, Vector, linear_scores, solve, symmetric

# A loss that is larger by less is the same loss.
_SAME_LOSS = 1e-12


@dataclass(frozen=True)
class Coefficients:
    """What a fit ends with.

    Args:
        values: One a feature; float64, shape [features].
        intercept: The constant term; 0 without one.
        iterations: Newton steps; 1 for normal equations.
        converged: Whether the tolerance was reached.
    """

    values: Vector
    intercept: float
    iterations: int = 1
    converged: bool = True


class Fit:
    """The fit of one worker; every worker makes the same one.

    Args:
        context: Reports metrics and offers checkpoints.
        peers: All workers.
        shards: `train` and the evaluation sets.
        config: What is fitted.
        settings: Roles, and what to go on from.
    """

    def __init__(
        self,
        context: WorkerContext,
        peers: Collectives,
        shards: Mapping[str, ShardReader],
        config: LinearConfig,
        settings: RunSettings,
    ) -> None:
        self._context, self._peers, self._shards = context, peers, shards
        self._config, self._settings = config, settings
        self._features = len(settings.roles.features)
        self._unknowns = self._features + config.fit_intercept
        self._names = (*settings.roles.features, "the intercept")[: self._unknowns]
        penalised = np.arange(self._unknowns) < self._features
        self._penalty = np.where(penalised, config.penalty, 0.0)
        self._total_weight, self._shift = self._means()

    def run(self) -> Coefficients:
        """Fit, report the metrics, and return the coefficients."""
        if self._config.estimator == "logistic":
            return self._newton()
        found = self._normal_equations()
        self._report(0, found)
        return found

    def _means(self) -> tuple[float, Vector]:
        """Return the sum of the weights, and what each feature is shifted by: large means would cost digits."""
        sums = RowSums(1 + self._features)
        for rows in self._rows(TRAIN):
            sums.add([rows.weight, *(rows.weight * column for column in rows.features)])
        weight, *totals = sums.over_all(self._peers).tolist()
        if not weight:
            raise InvalidValueError("adding up the weights", "found 0", "Some row needs a weight above 0.")
        return weight, np.array(totals) / weight if self._config.fit_intercept else np.zeros(self._features)

    def _normal_equations(self) -> Coefficients:
        size, triangle = self._unknowns, self._unknowns * (self._unknowns + 1) // 2
        sums = RowSums(triangle + size)
        for rows in self._rows(TRAIN):
            columns = self._columns(rows)
            sums.add([*_products(columns, rows.weight), *(rows.weight * rows.label * column for column in columns)])
        total = sums.over_all(self._peers)
        matrix = symmetric(total[:triangle], size) + np.diag(self._penalty)
        return self._unshifted(solve(matrix, total[triangle:], self._names))

    def _newton(self) -> Coefficients:
        resume = self._settings.resume
        state = NewtonState.from_files(resume.files) if resume else NewtonState.start(self._unknowns)
        while state.step < self._config.max_iter and not state.converged and not self._asked_to_stop():
            state = self._newton_step(state)
            self._report(state.step - 1, self._unshifted(state.accepted))
            every = self._settings.checkpoint_every_rounds
            if every and state.step % every == 0:
                self._context.offer_checkpoint(state.step, state.files())
        found = self._unshifted(state.accepted)
        return Coefficients(found.values, found.intercept, state.step, state.converged)

    def _newton_step(self, state: NewtonState) -> NewtonState:
        """Measure the loss at the candidate; accept it and make the next one, or go back half the way."""
        size, triangle = self._unknowns, self._unknowns * (self._unknowns + 1) // 2
        sums = RowSums(1 + size + triangle)
        for rows in self._rows(TRAIN):
            columns = self._columns(rows)
            scores = linear_scores(columns, state.candidate, 0.0, len(rows.label))
            chance = chances(scores)
            slope, bend = rows.weight * (chance - rows.label), rows.weight * chance * (1.0 - chance)
            losses = rows.weight * _log_losses(scores, rows.label)
            sums.add([losses, *(slope * column for column in columns), *_products(columns, bend)])
        total = sums.over_all(self._peers)
        loss = float(total[0] + 0.5 * np.sum(self._penalty * state.candidate**2))
        if loss > state.loss + _SAME_LOSS * abs(state.loss):
            return state.halved()
        gradient = total[1 : 1 + size] + self._penalty * state.candidate
        if np.max(np.abs(gradient)) <= self._config.tol * self._total_weight:
            return state.finished(loss)
        matrix = symmetric(total[1 + size :], size) + np.diag(self._penalty)
        return state.moved(loss, state.candidate - solve(matrix, gradient, self._names))

    def _asked_to_stop(self) -> bool:
        # All or none: one that went on alone would wait for the others.
        return bool(self._peers.allreduce(int(self._context.should_stop()), "max"))

    def _report(self, round: int, found: Coefficients) -> None:
        logistic = self._config.estimator == "logistic"
        metrics = {}
        for dataset in self._shards:
            sums = RowSums(2)
            for rows in self._rows(dataset):
                scores = linear_scores(rows.features, found.values, found.intercept, len(rows.label))
                losses = _log_losses(scores, rows.label) if logistic else (scores - rows.label) ** 2
                sums.add([rows.weight, rows.weight * losses])
            weight, loss = sums.over_all(self._peers).tolist()
            if weight:
                metrics[f"{dataset}-{'logloss' if logistic else 'rmse'}"] = _mean(loss, weight, root=not logistic)
        self._context.report(round, metrics)

    def _rows(self, dataset: str) -> Iterator[Rows]:
        return read_rows(self._shards[dataset], self._settings.roles, self._config.estimator == "logistic")

    def _columns(self, rows: Rows) -> list[Column]:
        shifted = [column - mean for column, mean in zip(rows.features, self._shift.tolist(), strict=True)]
        return [*shifted, np.ones(len(rows.label))] if self._config.fit_intercept else shifted

    def _unshifted(self, solution: Vector) -> Coefficients:
        values = solution[: self._features]
        constant = float(solution[-1]) if self._config.fit_intercept else 0.0
        return Coefficients(values, constant - float(np.sum(values * self._shift)))


def _products(columns: list[Column], weight: Column) -> Iterator[Column]:
    for one, other in combinations_with_replacement(columns, 2):
        yield weight * one * other


def chances(scores: Column) -> Column:
    """Return the chance of label 1 for each score."""
    odds = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, odds) / (1.0 + odds)


def _log_losses(scores: Column, label: Column) -> Column:
    losses: Column = np.maximum(scores, 0.0) - scores * label + np.log1p(np.exp(-np.abs(scores)))
    return losses


def _mean(total: float, weight: float, root: bool) -> float:
    return float(np.sqrt(total / weight)) if root else total / weight


__all__ = ["Coefficients", "Fit", "chances"]

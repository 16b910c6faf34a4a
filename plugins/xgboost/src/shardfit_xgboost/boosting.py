"""The boosting loop of one worker: the same rounds, metrics and decisions on every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from shardfit.checkpoint_pace import CheckpointPace
from shardfit.engine import WorkerContext
from shardfit.errors import RunCancelledError
from shardfit.matrix_reader import MatrixSpec
from shardfit.metrics import CustomMetric
from shardfit.metrics.contract import Metric, Reducer
from shardfit.metrics.early_stopping import EarlyStopping
from shardfit.row_hash import hash_rows, rows_below
from shardfit.saved_spec import check_same_categories, check_same_width
from shardfit.trainer import TRAIN, RunSettings
from shardfit_xgboost.config import XGBConfig
from shardfit_xgboost.gradients import LOG_LINK, row_gradients, summable
from shardfit_xgboost.matrix import Float32Array, ShardMatrix
from shardfit_xgboost.model import XGBModel
from shardfit_xgboost.rendezvous import allreduce
from shardfit_xgboost.resume import draws_at_random, load_booster, reseed, resumable

History = dict[str, dict[str, list[float]]]


class BoostingLoop:
    """Boosts one shard in step with its peers. Made once an attempt, on every worker.

    Args:
        context: This worker.
        matrices: `train` and the evaluation sets.
        config: Completed with the profile.
        settings: Seed, checkpoints, where to go on from.
    """

    def __init__(
        self,
        context: WorkerContext,
        matrices: Mapping[str, ShardMatrix],
        config: XGBConfig,
        settings: RunSettings,
    ) -> None:
        self._context = context
        self._config = config
        self._settings = settings
        self._train = matrices[TRAIN]
        self._spec: MatrixSpec = settings.reference.spec
        self._evals = {name: matrix for name, matrix in matrices.items() if name != TRAIN}
        self._reducer = Reducer(
            context.rank, context.world_size, allreduce if context.world_size > 1 else lambda values: values
        )
        self._history: History = {name: {metric.name: [] for metric in config.metrics} for name in self._evals}
        self._stopping = self._early_stopping()
        every = settings.checkpoint_every_rounds, settings.checkpoint_every_seconds
        self._pace = CheckpointPace(*every, context.clock)
        self._rows = int(self._reducer.sum(np.array([self._train.rows], dtype=np.int64))[0])
        self._own_gradients = self._needs_own_gradients()

    def run(self) -> XGBModel | None:
        """Boost until the last round, early stopping or a callback ends it; worker 0 returns the model."""
        booster, first = self._start()
        callbacks = _Callbacks(self._config.callbacks, self._history, self._reducer)
        booster = callbacks.before_training(booster)
        last = first - 1
        for number in range(first, self._config.rounds):
            if self._context.should_stop():
                raise RunCancelledError(f"training, before round {number}", "the driver asked the workers to stop")
            if self._stops() or callbacks.before_round(booster, number):
                break
            self._boost(booster, number)
            last = number
            self._evaluate(booster, number)
            self._offer_checkpoint(booster, number)
            if callbacks.after_round(booster, number):
                break
        booster = callbacks.after_training(booster)
        return self._model(booster, last) if self._context.rank == 0 else None

    def _start(self) -> tuple[Any, int]:
        params = {**self._config.params, "nthread": self._config.params.get("nthread", self._context.slot.cpus)}
        params.setdefault("seed", self._settings.seed)
        if self._context.slot.gpus:
            params["device"] = "cuda"
        cache = [self._train.data, *(matrix.data for matrix in self._evals.values())]
        if self._settings.resume is None:
            return xgb.Booster(params, cache=cache), 0
        model = XGBModel.from_files(self._settings.resume.files)
        check_same_categories(self._spec, model.spec)
        check_same_width(self._spec, model.spec)
        booster = load_booster(model, params, cache)
        rounds = booster.num_boosted_rounds()
        self._take_over(model.history, rounds)
        return booster, rounds

    def _take_over(self, history: Mapping[str, Mapping[str, list[float]]], rounds: int) -> None:
        unknown = [float("nan")] * rounds
        for dataset, metrics in self._history.items():
            for name, values in metrics.items():
                values += history.get(dataset, {}).get(name, unknown)[:rounds]
        if self._stopping is not None:
            for number, value in enumerate(self._deciding_values()):
                if not np.isnan(value):
                    self._stopping = self._stopping.update(number, value)

    def _deciding_values(self) -> list[float]:
        return self._history[list(self._history)[-1]][self._config.metrics[-1].name]

    def _boost(self, booster: Any, number: int) -> None:
        data, kept = self._train.data, self._kept(number)
        if draws_at_random(self._config):
            reseed(booster)
        if not self._own_gradients:
            if kept is not None:
                data.set_weight(kept if self._train.weights is None else kept * self._train.weights)
            booster.update(data, iteration=number)
            return
        margins = booster.predict(data, output_margin=True, training=True)
        gradients, hessians = (summable(values, self._rows, self._reducer) for values in self._gradients(margins, kept))
        booster.boost(data, iteration=number, grad=gradients, hess=hessians)

    def _gradients(self, margins: Float32Array, kept: Float32Array | None) -> tuple[Float32Array, Float32Array]:
        config, train = self._config, self._train
        if config.custom_objective is None:
            weights = train.weights if kept is None else kept if train.weights is None else kept * train.weights
            return row_gradients(str(config.objective.name), margins, train.labels, weights, config.params)
        given = config.custom_objective(margins, train.data)
        gradients, hessians = (np.asarray(values, dtype=np.float32) for values in given)
        if kept is None:
            return gradients, hessians
        rows = kept.reshape(-1, *[1] * (gradients.ndim - 1))
        return gradients * rows, hessians * rows

    def _kept(self, number: int) -> Float32Array | None:
        if self._config.subsample >= 1.0 or self._config.native_subsample:
            return None
        seed = int(self._config.params.get("seed", self._settings.seed))
        hashes = hash_rows(self._train.row_ids, seed, number, 1)
        return (hashes < rows_below(self._config.subsample)).astype(np.float32)

    def _needs_own_gradients(self) -> bool:
        config, weights = self._config, self._train.weights
        weightless = 0 if weights is None else int(np.count_nonzero(weights == 0))
        # Every worker asks, so that all of them decide alike.
        weightless = int(self._reducer.sum(np.array([weightless], dtype=np.int64))[0])
        if config.custom_objective is not None or config.objective.name in LOG_LINK:
            return True
        sampled = config.subsample < 1.0 and not config.native_subsample
        return config.objective.classes > 0 and (sampled or weightless > 0)

    def _evaluate(self, booster: Any, number: int) -> None:
        values: dict[str, float] = {}
        for name, matrix in self._evals.items():
            raw = booster.predict(matrix.data, output_margin=self._config.objective.measured_on_margins)
            predictions = self._config.objective.transform(raw)
            for metric in self._config.metrics:
                # As in XGBoost, who gives an objective of their own measures raw predictions.
                own = self._config.custom_objective is not None and isinstance(metric, CustomMetric)
                value = self._measure(metric, raw if own else predictions, matrix)
                values[f"{name}-{metric.name}"] = value
                self._history[name][metric.name].append(value)
        if self._stopping is not None:
            self._stopping = self._stopping.update(number, self._deciding_values()[-1])
        self._context.report(number, values)
        self._context.progress("fit", number + 1, self._config.rounds)

    def _measure(self, metric: Metric, predictions: npt.NDArray[np.float32], matrix: ShardMatrix) -> float:
        return metric.evaluate(predictions, matrix.labels, matrix.weights, matrix.groups, reducer=self._reducer)

    def _offer_checkpoint(self, booster: Any, number: int) -> None:
        if self._context.rank or not resumable(self._config):
            return
        if self._pace.trial_due(number + 1):
            with self._pace.trying(number + 1):
                self._model(booster, number).files()
        if self._pace.due(number + 1):
            with self._pace.making(number + 1):
                self._context.offer_checkpoint(number + 1, self._model(booster, number).files())

    def _model(self, booster: Any, last: int) -> XGBModel:
        best = last
        if self._stopping is not None and self._stopping.best_round is not None:
            best = self._stopping.best_round
            booster.set_attr(best_iteration=str(best), best_score=str(self._stopping.best_score))
        elif (found := booster.attr("best_iteration")) is not None:
            # XGBoost's own callback leaves it, and may have cut off the rounds behind it.
            best = min(int(found), booster.num_boosted_rounds() - 1)
        raw = bytes(booster.save_raw("ubj"))
        return XGBModel(raw, self._spec, self._config.objective.name or "", self._history, best)

    def _stops(self) -> bool:
        return self._stopping is not None and self._stopping.stop

    def _early_stopping(self) -> EarlyStopping | None:
        if self._config.early_stopping_rounds is None or not self._evals or not self._config.metrics:
            return None
        return EarlyStopping(self._config.early_stopping_rounds, maximize=self._config.metrics[-1].maximize)


class _Callbacks:
    """The user's XGBoost callbacks; if one of them wants to stop on any worker, all workers stop."""

    def __init__(self, callbacks: Sequence[Any], history: History, reducer: Reducer) -> None:
        self._callbacks = tuple(callbacks)
        self._history = history
        self._reducer = reducer

    def before_training(self, booster: Any) -> Any:
        for callback in self._callbacks:
            booster = callback.before_training(booster)
        return booster

    def after_training(self, booster: Any) -> Any:
        for callback in self._callbacks:
            booster = callback.after_training(booster)
        return booster

    def before_round(self, booster: Any, number: int) -> bool:
        return self._agree([callback.before_iteration(booster, number, self._history) for callback in self._callbacks])

    def after_round(self, booster: Any, number: int) -> bool:
        return self._agree([callback.after_iteration(booster, number, self._history) for callback in self._callbacks])

    def _agree(self, answers: Sequence[bool]) -> bool:
        if not answers:
            return False
        return bool(self._reducer.allreduce(np.array([sum(map(bool, answers))], dtype=np.int64))[0])

"""The boosting loop of one worker: the same rounds, metrics and decisions on every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.checkpoint_pace import CheckpointPace
from shardfit.collectives.contract import Collectives
from shardfit.engine import WorkerContext
from shardfit.errors import RunCancelledError
from shardfit.metrics.contract import Reducer
from shardfit.row_hash import hash_rows, rows_below
from shardfit.trainer import TRAIN, RunSettings
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.gradients import predictions_of
from shardfit_lightgbm.learner import Learner
from shardfit_lightgbm.matrix import ShardMatrix
from shardfit_lightgbm.model import LightGBMModel, text_with_start
from shardfit_lightgbm.network import library_network
from shardfit_lightgbm.resume import resumable
from shardfit_lightgbm.second_machine import SecondMachine
from shardfit_lightgbm.stopping import StoppingRule
from shardfit_lightgbm.summable_objective import SummableObjective, class_weights, gradient_limits

# Of the features that a tree sees, and of the thresholds of extra_trees.
_SEEDS = ("feature_fraction_seed", "extra_seed")

History = dict[str, dict[str, list[float]]]


class BoostingLoop:
    """Boosts one shard in step with its peers. Made once an attempt, on every worker.

    Args:
        context: This worker.
        matrices: `train` and the evaluation sets.
        config: Completed with the profile.
        settings: Seed, checkpoints, where to go on from.
        peers: The other workers, or this one alone.
    """

    def __init__(
        self,
        context: WorkerContext,
        matrices: Mapping[str, ShardMatrix],
        config: LightGBMConfig,
        settings: RunSettings,
        peers: Collectives,
    ) -> None:
        self._context, self._config, self._settings, self._peers = context, config, settings, peers
        self._train = matrices[TRAIN]
        self._evals = {name: matrix for name, matrix in matrices.items() if name != TRAIN}
        self._reducer = Reducer(context.rank, context.world_size, peers.allreduce)
        self._history: History = {name: {metric.name: [] for metric in config.metrics} for name in self._evals}
        self._stopping = self._stopping_rule()
        every = settings.checkpoint_every_rounds, settings.checkpoint_every_seconds
        self._pace = CheckpointPace(*every, context.clock)
        self._objectives: tuple[SummableObjective, ...] = ()
        self._earlier: Any = None
        if settings.resume is not None:
            model = LightGBMModel.from_files(settings.resume.files)
            self._earlier = model.booster()
            self._take_over(model.history)

    def run(self) -> LightGBMModel | None:
        """Boost until the last round, early stopping or a callback ends it; worker 0 returns the model."""
        with ExitStack() as stack:
            learner = self._start(stack)
            first = 0 if self._earlier is None else self._earlier.current_iteration()
            callbacks = _Callbacks(self._config, self._peers, first)
            last = first - 1
            for number in range(first, self._config.rounds):
                if self._context.should_stop():
                    raise RunCancelledError(f"training, before round {number}", "the driver asked the workers to stop")
                if self._stopping is not None and self._stopping.stop:
                    break
                self._seed(learner, number)
                callbacks.before_round(learner, number)
                self._draw(learner, number)
                finished = learner.grow(*self._objectives)
                if finished and learner.current_iteration() <= number:
                    break
                if number == first == 0 and self._config.bagging is None and not self._config.chooses_rows:
                    learner.check_rows(self._config.rows)
                last = number
                evaluated = self._evaluate(learner, number)
                self._offer_checkpoint(learner, number)
                if callbacks.after_round(learner, number, evaluated) or finished:
                    break
            return self._model(learner, last, callbacks.best_round) if self._context.rank == 0 else None

    def _start(self, stack: ExitStack) -> Learner:
        config, context = self._config, self._context
        params = {**config.params, "num_threads": config.params.get("num_threads", context.slot.cpus)}
        params.setdefault("seed", self._settings.seed)
        params.update(self._bins_of_dataset())
        second, peers = None, self._peers
        if self._train.first is not None:
            second = stack.enter_context(SecondMachine())
            peers = second.peers
        network = stack.enter_context(library_network(peers)) if peers.world_size > 1 else None
        written = None
        if config.summable:
            self._objectives = self._summable_objectives(params["num_threads"], second)
            params["objective"], written = "none", config.objective if config.objective.name else None
        learner = Learner(params, self._train, network, peers.world_size, second, self._earlier, written)
        for name, matrix in self._evals.items():
            if matrix.data is not None:
                learner.add_valid(matrix.data, name)
        return learner

    def _summable_objectives(self, threads: int, second: SecondMachine | None) -> tuple[SummableObjective, ...]:
        train, config = self._train, self._config
        first_rows = 0 if train.first is None else int(train.first.num_data())
        by_class = class_weights(config, train.labels, self._peers)
        limits = gradient_limits(config, train.weights, by_class, self._peers)
        parts = [(slice(first_rows, None), self._peers if second is None else second.peers)]
        parts += [] if second is None else [(slice(0, first_rows), second.peers_of_thread)]
        return tuple(
            SummableObjective(
                config,
                train.labels[rows],
                None if train.weights is None else train.weights[rows],
                by_class,
                limits,
                peers,
                threads,
            )
            for rows, peers in parts
        )

    def _bins_of_dataset(self) -> dict[str, Any]:
        given: Mapping[str, Any] = self._train.data.params
        return {name: given[name] for name in ("max_bin_by_feature",) if name in given}

    def _draw(self, learner: Learner, number: int) -> None:
        bagging, row_ids = self._config.bagging, self._train.row_ids
        if bagging is None or row_ids is None or (number % bagging.frequency and number != self._first_round()):
            return
        seed = self._settings.seed if bagging.seed is None else bagging.seed
        hashes = hash_rows(row_ids, seed, number // bagging.frequency, 2)
        kept = (hashes < rows_below(bagging.fraction)).astype(np.float32)
        if self._objectives:
            first_rows = len(kept) - self._objectives[0].rows
            self._objectives[0].keep(kept[first_rows:])
            if first_rows:
                self._objectives[1].keep(kept[:first_rows])
            return
        learner.weigh(kept if self._train.weights is None else kept * self._train.weights)

    def _seed(self, learner: Learner, number: int) -> None:
        """Seed what LightGBM draws by the round, so that a resumed run draws what an undisturbed one would have."""
        params = self._config.params
        shares = [float(params.get(name, 1.0)) for name in ("feature_fraction", "feature_fraction_bynode")]
        draws = min(shares) < 1.0 or params.get("extra_trees")
        # Changing parameters starts dart, and samples of rows, all over.
        if not draws or self._config.chooses_rows or not resumable(self._config):
            return
        base = params.get("seed", self._settings.seed)
        seeds = [int(params.get(name, base)) for name in _SEEDS]
        hashes = [
            int(hash_rows(np.array([number]), seed, place)[0] >> np.uint64(33)) for place, seed in enumerate(seeds)
        ]
        learner.reset_parameter(dict(zip(_SEEDS, hashes, strict=True)))

    def _first_round(self) -> int:
        return 0 if self._earlier is None else int(self._earlier.current_iteration())

    def _evaluate(self, learner: Learner, number: int) -> list[Any]:
        predicted = self._predictions(learner)
        found: list[Any] = []
        for name, matrix in self._evals.items():
            for metric in self._config.metrics:
                value = metric.evaluate(
                    predicted[name], matrix.labels, matrix.weights, matrix.groups, reducer=self._reducer
                )
                self._history[name][metric.name].append(value)
                found.append(lgb.EvalResult(name, metric.name, value, metric.maximize))
        if self._stopping is not None:
            self._stopping = self._stopping.update(number, {result[:2]: result.metric_value for result in found})
        self._context.report(number, {"-".join(result[:2]): result.metric_value for result in found})
        self._context.progress("fit", number + 1, self._config.rounds)
        return found

    def _predictions(self, learner: Learner) -> dict[str, npt.NDArray[np.float64]]:
        """Return what LightGBM predicts for each evaluation set, as it hands it to a metric of the user's."""
        classes = self._config.objective.classes
        nothing = np.empty(0 if classes == 1 else (0, classes))
        found = dict.fromkeys(self._evals, nothing)
        names = {id(matrix.data): name for name, matrix in self._evals.items() if matrix.data is not None}

        def take(predictions: Any, data: Any) -> tuple[str, float, bool]:
            found[names[id(data)]] = predictions
            return "taken", 0.0, False

        if names and self._config.metrics:
            learner.eval_valid(feval=take)
        if self._objectives:
            return {name: predictions_of(self._config.objective, scores) for name, scores in found.items()}
        return found

    def _offer_checkpoint(self, learner: Learner, number: int) -> None:
        if self._context.rank or not resumable(self._config):
            return
        if self._pace.trial_due(number + 1):
            with self._pace.trying(number + 1):
                self._model(learner, number, None).files()
        if self._pace.due(number + 1):
            with self._pace.making(number + 1):
                self._context.offer_checkpoint(number + 1, self._model(learner, number, None).files())

    def _model(self, learner: Learner, last: int, best_of_callbacks: int | None) -> LightGBMModel:
        best = last if best_of_callbacks is None else best_of_callbacks
        decisive = None if self._stopping is None else self._stopping.decisive
        if decisive is not None and decisive.best_round is not None:
            best = min(decisive.best_round, last)
        # With a column of initial scores, rows started from those alone; they are not part of a model.
        given = self._settings.reference.spec.roles.base_margin
        start = () if given or self._earlier is not None else self._config.initial_scores
        text = text_with_start(learner, start, self._config.rows)
        spec = self._settings.reference.spec
        return LightGBMModel(text, spec, self._config.objective.name or "", self._history, best)

    def _take_over(self, history: Mapping[str, Mapping[str, list[float]]]) -> None:
        rounds = self._first_round()
        unknown = [float("nan")] * rounds
        for dataset, metrics in self._history.items():
            for name, values in metrics.items():
                values += history.get(dataset, {}).get(name, unknown)[:rounds]
        known = all(name in history.get(dataset, {}) for dataset, metrics in self._history.items() for name in metrics)
        for number in range(rounds if known else 0):
            values_of_round = {
                (name, metric): values[number] for name, m in self._history.items() for metric, values in m.items()
            }
            if self._stopping is not None:
                self._stopping = self._stopping.update(number, values_of_round)

    def _stopping_rule(self) -> StoppingRule | None:
        config = self._config
        if config.early_stopping_rounds is None or not self._evals or not config.metrics:
            return None
        return StoppingRule.of(
            config.early_stopping_rounds, config.min_delta, config.first_metric_only, list(self._evals), config.metrics
        )


class _Callbacks:
    """The user's LightGBM callbacks; if one of them wants to stop on any worker, all workers stop."""

    def __init__(self, config: LightGBMConfig, peers: Collectives, first: int) -> None:
        ordered = sorted(config.callbacks, key=lambda callback: getattr(callback, "order", 0))
        self._before = [callback for callback in ordered if getattr(callback, "before_iteration", False)]
        self._after = [callback for callback in ordered if not getattr(callback, "before_iteration", False)]
        self._config, self._peers, self._first = config, peers, first
        self.best_round: int | None = None

    def before_round(self, learner: Learner, number: int) -> None:
        for callback in self._before:
            callback(self._environment(learner, number, []))

    def after_round(self, learner: Learner, number: int, evaluated: Sequence[Any]) -> bool:
        if not self._after:
            return False
        best = -1
        for callback in self._after:
            try:
                callback(self._environment(learner, number, list(evaluated)))
            except lgb.callback.EarlyStopException as stop:
                best = int(stop.best_iteration)
                break
        best = int(self._peers.allreduce(np.array([best], dtype=np.int64), "max")[0])
        if best < 0:
            return False
        self.best_round = best
        return True

    def _environment(self, learner: Learner, number: int, evaluated: list[Any]) -> Any:
        return lgb.callback.CallbackEnv(
            model=learner,
            params=dict(self._config.params),
            iteration=number,
            begin_iteration=self._first,
            end_iteration=self._config.rounds,
            evaluation_result_list=evaluated,
        )

"""LightGBM's booster of one worker, or two of them that train together where there is only one worker."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.errors import InvalidArgumentError, WorkerError, WorkerLostError
from shardfit_lightgbm.labels import not_all_zero
from shardfit_lightgbm.library import merge_models
from shardfit_lightgbm.matrix import ShardMatrix
from shardfit_lightgbm.model import with_objective
from shardfit_lightgbm.network import LibraryNetwork
from shardfit_lightgbm.objectives import ObjectiveFacts
from shardfit_lightgbm.parameters import RUN_PARAMETERS, main_name
from shardfit_lightgbm.second_machine import SecondMachine

Float32Array = npt.NDArray[np.float32]

# What a booster asks of itself in its first round with a function as objective. It has none from the beginning, and
# asking for it would start its generators again.
_NO_OBJECTIVE = {"objective": "none"}


class Learner(lgb.Booster):  # type: ignore[misc]
    """A booster that grows the same trees as its peers, and takes the second machine of this worker along.

    Args:
        params: Of the booster, without those of the network.
        matrix: The training rows.
        network: What LightGBM calls, or None where there is one machine only.
        world_size: Number of machines.
        second: The second machine of this worker, or None.
        earlier: A model to go on from, or None.
        objective: What the model is said to be trained for where each round is given its gradients, or None.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        matrix: ShardMatrix,
        network: LibraryNetwork | None,
        world_size: int,
        second: SecondMachine | None = None,
        earlier: Any = None,
        objective: ObjectiveFacts | None = None,
    ) -> None:
        self._objective = objective
        self._machines, self._second, self._first_rows = network, second, 0
        self._other: Any = None
        given = dict(params)
        if network is not None:
            given |= {"tree_learner": "data", "num_machines": world_size}
        if second is not None:
            self._first_rows = int(matrix.first.num_data())
            other = second.begin(lambda: _second_booster(given, matrix.first, earlier))
        super().__init__(given, matrix.data)
        _prepare(self, given, earlier)
        if second is not None:
            self._check(other)
            self._other = other.result()
        self._check()

    def grow(self, objective: Any = None, objective_of_second: Any = None) -> bool:
        """Boost one round together with all peers; return whether no tree can grow any more.

        Args:
            objective: A function (raw scores, dataset) -> (gradients, hessians), or None for LightGBM's own.
            objective_of_second: The same for the rows of the second machine.

        Raises:
            WorkerLostError: A peer went away.
        """
        other = None
        if self._second is not None:
            other = self._second.begin(lambda: self._other.update(fobj=objective_of_second))
        try:
            finished = bool(self.update(fobj=objective))
        except lgb.basic.LightGBMError:
            self._check(other)
            raise
        except WorkerLostError:
            # The objective met nobody: what the second machine has failed with is the reason.
            if other is not None:
                other.result()
            raise
        self._check(other)
        if other is not None:
            other.result()
        return finished

    def model_to_string(self, *args: Any, **kwargs: Any) -> str:
        """Return the model as text, which names its objective."""
        text = str(super().model_to_string(*args, **kwargs))
        return text if self._objective is None else with_objective(text, self._objective)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the finished model predicts; for callbacks."""
        return lgb.Booster(model_str=self.model_to_string(num_iteration=-1)).predict(*args, **kwargs)

    def weigh(self, weights: Float32Array) -> None:
        """Give the rows new weights; float32, shape [rows], in the order of the shard."""
        if self._other is not None:
            self._other.train_set.set_field("weight", self._weights(weights[: self._first_rows]))
        self.train_set.set_field("weight", self._weights(weights[self._first_rows :]))

    def reset_parameter(self, params: dict[str, Any]) -> Learner:
        """Change parameters, as callbacks do, on both machines.

        Raises:
            InvalidArgumentError: One of them is shardfit's own part, which LightGBM would not hear of.
        """
        if params == _NO_OBJECTIVE:
            return self
        for name, value in params.items():
            if main_name(name) in RUN_PARAMETERS:
                raise InvalidArgumentError(
                    f"changing parameter {name!r} to {value!r} during training",
                    "it holds for the whole run",
                    "Give it to the estimator, or leave it out of reset_parameter.",
                )
        other = None
        if self._second is not None and self._other is not None:
            other = self._second.begin(lambda: self._other.reset_parameter(params))
        super().reset_parameter(params)
        if other is not None:
            other.result()
        return self

    def _weights(self, weights: Float32Array) -> Float32Array:
        return not_all_zero(weights) if self.params.get("objective") == "cross_entropy" else weights

    def _has_bins(self) -> bool:
        """Return whether there is anything to split by: without, machines have nothing to tell each other."""
        return any(self.train_set.feature_num_bin(feature) for feature in range(self.num_feature()))

    def check_rows(self, rows: int) -> None:
        """Check that the first tree saw every row of every worker.

        Args:
            rows: Rows of the whole training data.

        Raises:
            WorkerError: LightGBM trained on fewer: its world is another than the one that was planned.
        """
        tree = self.dump_model(num_iteration=1)["tree_info"][0]["tree_structure"]
        seen = tree.get("internal_count", rows)
        exchanged = self._machines is None or self._machines.exchanges > 0 or not self._has_bins()
        if seen != rows or not exchanged:
            raise WorkerError(
                "training with LightGBM", f"the first tree saw {seen} rows, the plan has {rows}", "This is a bug."
            )

    def _check(self, other: Future[Any] | None = None) -> None:
        if self._machines is None:
            return
        try:
            self._machines.check()
        except WorkerLostError:
            # If it is the second machine that has left, what it failed with is the reason.
            if other is not None:
                other.result()
            raise


class _SecondBooster(lgb.Booster):  # type: ignore[misc]
    """The booster of the second machine."""

    def reset_parameter(self, params: dict[str, Any]) -> _SecondBooster:
        """Change parameters."""
        if params != _NO_OBJECTIVE:
            super().reset_parameter(params)
        return self


def _second_booster(params: Mapping[str, Any], data: Any, earlier: Any) -> Any:
    booster = _SecondBooster(dict(params), data)
    _prepare(booster, params, earlier)
    return booster


def _prepare(booster: Any, params: Mapping[str, Any], earlier: Any) -> None:
    if earlier is not None:
        merge_models(booster, earlier)
    if params.get("boosting") == "dart" and params["objective"] == _NO_OBJECTIVE["objective"]:
        # LightGBM draws the trees to drop when it is asked for scores. Before the first round it has not yet noted
        # whether it did, so that a number may be missing: it draws now, and then starts its generator again.
        booster.eval_train(feval=lambda *_: ("asked", 0.0, False))
        lgb.Booster.reset_parameter(booster, _NO_OBJECTIVE)

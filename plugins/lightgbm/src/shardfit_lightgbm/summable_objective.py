"""The objective as a function that LightGBM calls each round: gradients that all workers can add up exactly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from shardfit.collectives.contract import Collectives
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.gradients import Gradients, largest_gradients, row_gradients
from shardfit_lightgbm.summable import largest_of, round_to_step, step_of

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Temporaries of so many rows stay in the cache of a core.
_BLOCK_ROWS = 2**16
# With heavier rows, the grid follows the gradients that there are in each round.
_HEAVIEST = 8.0


class SummableObjective:
    """Gradients and Hessians of the rows of one machine, on the grid of all machines.

    Args:
        config: Completed with the profile.
        labels: float32, shape [rows].
        weights: float32, shape [rows], or None.
        class_weights: As `class_weights` returns them.
        limits: As `gradient_limits` returns them.
        peers: Those that train together; each of them calls this in the same round.
        threads: How many work at once.
    """

    def __init__(
        self,
        config: LightGBMConfig,
        labels: Float32Array,
        weights: Float32Array | None,
        class_weights: Float64Array | None,
        limits: tuple[float, float] | None,
        peers: Collectives,
        threads: int,
    ) -> None:
        self._config, self._labels, self._weights, self._class_weights = config, labels, weights, class_weights
        self._limits, self._peers, self._threads = limits, peers, threads
        self._kept: Float32Array | None = None
        classes = config.objective.classes
        # By class, as LightGBM takes them; used again in each round.
        shape = (classes, len(labels)) if classes > 1 else (len(labels),)
        self._gradients, self._hessians = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)

    @property
    def rows(self) -> int:
        """How many rows it is for."""
        return len(self._labels)

    def keep(self, kept: Float32Array) -> None:
        """Train on some of the rows from now on; float32, shape [rows], 1 for those and 0 for the others."""
        self._kept = kept

    def __call__(self, scores: Float64Array, data: Any) -> tuple[Float32Array, Float32Array]:
        """Return gradients and Hessians, float32, shape of `scores`, until the next call.

        Args:
            scores: Raw scores; float64, shape [rows], or [rows, classes].
            data: LightGBM's Dataset of the rows.
        """
        if self._limits is not None:
            steps = [step_of(limit, self._config.rows) for limit in self._limits]
            self._in_blocks(lambda part: self._write(self._compute(scores, part), steps, part))
            return self._gradients.T, self._hessians.T
        if self._config.custom_objective is None:
            largest = np.max([(0.0, 0.0), *self._in_blocks(lambda part: self._keep_large(scores, part))], axis=0)
        else:
            self._ask(scores, data)
            largest = np.array([largest_of(self._gradients), largest_of(self._hessians)])
        largest = self._peers.allreduce(largest, "max")
        steps = [step_of(float(value), self._config.rows) for value in largest]
        self._in_blocks(lambda part: self._write(self._parts(part), steps, part))
        return self._gradients.T, self._hessians.T

    def _compute(self, scores: Float64Array, part: slice) -> Gradients:
        weights = None if self._weights is None else self._weights[part]
        if self._kept is not None:
            weights = self._kept[part] if weights is None else weights * self._kept[part]
        config = self._config
        # Scores beyond reach become infinite gradients, as in LightGBM.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return row_gradients(
                config.objective, config.params, scores[part], self._labels[part], weights, self._class_weights
            )

    def _keep_large(self, scores: Float64Array, part: slice) -> tuple[float, float]:
        with np.errstate(over="ignore"):
            gradients, hessians = self._parts(part)
            gradients[...], hessians[...] = self._compute(scores, part)
        return largest_of(gradients), largest_of(hessians)

    def _parts(self, part: slice) -> tuple[Float32Array, Float32Array]:
        return self._gradients[..., part].T, self._hessians[..., part].T

    def _ask(self, scores: Float64Array, data: Any) -> None:
        """Take what the user's function finds; the rows that are left out have nothing to say."""
        given = self._config.custom_objective(scores, data)  # type: ignore[misc]
        self._gradients, self._hessians = (self._by_class(np.array(values, dtype=np.float32)) for values in given)
        if self._kept is not None:
            self._gradients, self._hessians = self._gradients * self._kept, self._hessians * self._kept

    def _by_class(self, values: Float32Array) -> Float32Array:
        classes = self._config.objective.classes
        return values.reshape(classes, -1) if classes > 1 and values.ndim == 1 else values.T

    def _write(self, found: Gradients, steps: list[float], part: slice) -> None:
        with np.errstate(invalid="ignore"):
            for values, step, out in zip(found, steps, self._parts(part), strict=True):
                round_to_step(values, step, out)

    def _in_blocks(self, work: Callable[[slice], Any]) -> list[Any]:
        starts = range(0, len(self._labels), _BLOCK_ROWS)
        parts = [slice(start, start + _BLOCK_ROWS) for start in starts]
        if self._threads == 1 or len(parts) < 2:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, parts))


def class_weights(config: LightGBMConfig, labels: Float32Array, peers: Collectives) -> Float64Array | None:
    """Return what rows of the other classes and those of a class weigh, as LightGBM's parameters have it.

    Called on every worker at the same time.

    Args:
        config: The trainer's configuration.
        labels: Of this worker; float32, shape [rows].
        peers: All workers.

    Returns:
        float64, shape [classes, 2], or None where they weigh 1.
    """
    facts, params = config.objective, config.params
    factor = float(params.get("scale_pos_weight", 1.0))
    unbalanced = bool(params.get("is_unbalance", False))
    if facts.name not in {"binary", "multiclassova"} or not (unbalanced or factor != 1.0):
        return None
    if facts.classes > 1:
        own = np.bincount(labels.astype(np.int64), minlength=facts.classes)[: facts.classes]
    else:
        own = np.array([np.count_nonzero(labels > 0)])
    own = peers.allreduce(own.astype(np.int64)).astype(np.float64)
    others = config.rows - own
    heavy = np.ones((len(own), 2))
    if unbalanced:
        heavy[:, 0] = np.where((own > others) & (others > 0), own / np.maximum(others, 1), 1.0)
        heavy[:, 1] = np.where((own <= others) & (own > 0), others / np.maximum(own, 1), 1.0)
    heavy[:, 1] *= factor
    return heavy


def gradient_limits(
    config: LightGBMConfig, weights: Float32Array | None, by_class: Float64Array | None, peers: Collectives
) -> tuple[float, float] | None:
    """Return what no gradient and no Hessian can exceed on any worker; None where their values shall tell.

    Called on every worker at the same time.

    Args:
        config: The trainer's configuration.
        weights: Of this worker; float32, shape [rows], or None.
        by_class: As `class_weights` returns them.
        peers: All workers.
    """
    limits = None if config.custom_objective else largest_gradients(config.objective, config.params)
    if limits is None:
        return None
    heaviest = 1.0 if weights is None else largest_of(weights)
    heaviest = float(peers.allreduce(np.array([heaviest]), "max")[0])
    if by_class is not None:
        heaviest *= float(by_class.max())
    # The product of a gradient and its weight may have been rounded up.
    gradient, hessian = (limit * heaviest * (1 + 2.0**-40) for limit in limits)
    # A few heavy rows would make the grid too coarse for all others long after they have been learnt.
    return (gradient, hessian) if heaviest <= _HEAVIEST else None


__all__ = ["SummableObjective", "class_weights", "gradient_limits"]

"""Gradients, predictions and model texts against LightGBM's own objectives, in one process."""

from __future__ import annotations

import re
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shardfit.collectives.contract import SoleWorker
from shardfit_lightgbm.config import LightGBMConfig, configure
from shardfit_lightgbm.gradients import ROW_OBJECTIVES, predictions_of, row_gradients
from shardfit_lightgbm.model import with_objective
from shardfit_lightgbm.summable_objective import class_weights, gradient_limits

ROWS = 3_000
random = np.random.default_rng(3)
FEATURES = random.normal(size=(ROWS, 4))
SCORES = FEATURES[:, 0] + random.normal(size=ROWS)
CLASS_SCORES = random.normal(size=(ROWS, 3))
WEIGHTS = (random.random(ROWS) + 0.1).astype(np.float32)
LABELS = {
    "binary": SCORES > 0.7,
    "cross_entropy": random.random(ROWS),
    "cross_entropy_lambda": random.random(ROWS),
    "gamma": random.gamma(2, 1, ROWS) + 0.1,
    "multiclass": random.choice(3, ROWS, p=[0.6, 0.3, 0.1]),
    "poisson": random.poisson(np.exp(FEATURES[:, 1])),
}
LABELS |= {"tweedie": LABELS["poisson"], "multiclassova": LABELS["multiclass"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted(ROW_OBJECTIVES)),
    ("regression", {"reg_sqrt": True}),
    ("fair", {"reg_sqrt": True, "fair_c": 2.5}),
    ("huber", {"alpha": 0.3}),
    ("poisson", {"poisson_max_delta_step": 0.2}),
    ("tweedie", {"tweedie_variance_power": 1.2}),
    ("binary", {"is_unbalance": True, "sigmoid": 2.5}),
    ("binary", {"scale_pos_weight": 3.7}),
    ("multiclassova", {"is_unbalance": True, "sigmoid": 0.5}),
    ("multiclassova", {"scale_pos_weight": 3.7}),
]


class Case:
    """One objective, its labels, and a booster of LightGBM that starts from `SCORES`."""

    def __init__(self, name: str, params: dict[str, Any], weighted: bool) -> None:
        classes = {"num_class": 3} if name.startswith("multi") else {}
        self.config: LightGBMConfig = configure({"objective": name, **classes, **params})
        self.scores = CLASS_SCORES if classes else SCORES
        self.labels = np.asarray(LABELS.get(name, SCORES * 2 + 1), dtype=np.float32)
        self.weights = WEIGHTS if weighted else None
        self.params = {**self.config.params, "num_leaves": 20, "learning_rate": 0.5, "num_threads": 1}

    def booster(self, **changes: Any) -> lgb.Booster:
        start = self.scores.T.reshape(-1)
        data = lgb.Dataset(FEATURES, self.labels, weight=self.weights, init_score=start, free_raw_data=False)
        return lgb.Booster({**self.params, **changes}, data)

    def gradients(self, scores: Any) -> Any:
        counted = LightGBMConfig(**{**vars(self.config), "rows": ROWS})
        by_class = class_weights(counted, self.labels, SoleWorker())
        facts = self.config.objective
        gradients, hessians = row_gradients(facts, self.config.params, scores, self.labels, self.weights, by_class)
        return gradients, np.broadcast_to(hessians, gradients.shape)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "params"), CASES)
def test_gradients_grow_the_trees_that_lightgbm_grows(name: str, params: dict[str, Any], weighted: bool) -> None:
    case = Case(name, params, weighted)
    own, given = case.booster(), case.booster(objective="none")
    for _ in range(3):
        own.update()
        given.update(fobj=lambda scores, _: case.gradients(scores))
    expected = own.predict(FEATURES, raw_score=True)
    np.testing.assert_allclose(given.predict(FEATURES), expected, rtol=1e-4, atol=1e-5)
    named = with_objective(given.model_to_string(), case.config.objective)
    np.testing.assert_allclose(predictions_of(case.config.objective, expected), own.predict(FEATURES), rtol=1e-12)
    assert lines_about_objective(named) == lines_about_objective(own.model_to_string())
    assert lgb.Booster(model_str=named).predict(FEATURES) == pytest.approx(own.predict(FEATURES), rel=1e-3, abs=1e-5)


def lines_about_objective(text: str) -> list[str]:
    head = text[: text.index("\n\n")]
    return [re.sub("^tree_sizes=.*", "", line) for line in head.splitlines()] + re.findall(
        r"^\[objective.*", text, re.M
    )


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("binary", {}),
        ("binary", {"sigmoid": 1.3, "scale_pos_weight": 3.7}),
        ("multiclassova", {"sigmoid": 0.7}),
        ("cross_entropy", {}),
        ("multiclass", {}),
    ],
)
@given(data=st.data())
def test_gradients_keep_to_the_limits_that_their_grid_is_made_for(
    name: str, params: dict[str, Any], data: st.DataObject
) -> None:
    config = configure({"objective": name, **({"num_class": 3} if name.startswith("multi") else {}), **params})
    shape = (4, 3) if config.objective.classes > 1 else (4,)
    scores = data.draw(arrays(np.float64, shape, elements=st.floats(-800, 800)))
    labels = data.draw(arrays(np.float32, 4, elements=st.sampled_from([0.0, 1.0])))
    weights = data.draw(arrays(np.float32, 4, elements=st.floats(0, 2, width=32)))
    by_class = class_weights(config, labels, SoleWorker())
    limits = gradient_limits(config, weights, by_class, SoleWorker())
    assert limits is not None
    with np.errstate(over="ignore"):
        found = row_gradients(config.objective, config.params, scores, labels, weights, by_class)
    for values, limit in zip(found, limits, strict=True):
        assert np.abs(values).max() <= limit


def test_the_grid_follows_the_gradients_where_a_few_rows_are_heavy() -> None:
    config, light = configure({"objective": "binary"}), np.ones(4, dtype=np.float32)
    assert gradient_limits(config, light, None, SoleWorker()) is not None
    assert gradient_limits(config, light * np.float32([1, 1, 1, 1e6]), None, SoleWorker()) is None

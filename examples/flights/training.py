"""The same model twice, from the same rows: with shardfit, and with plain XGBoost beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from examples.flights.data import CATEGORICAL, FEATURES, LABEL
from shardfit import DataConnector
from shardfit.events import EventSink
from shardfit_xgboost import XGBEstimator

ROUNDS = 300
PATIENCE = 20
PARAMS: dict[str, Any] = {
    "objective": "binary:logistic",
    "eval_metric": ["auc", "logloss"],
    "tree_method": "hist",
    "max_depth": 6,
    "learning_rate": 0.1,
    "min_child_weight": 20,
}


@dataclass(frozen=True, slots=True)
class Scores:
    """How good a model is on the held-out month.

    Args:
        auc: Area under the ROC curve; 0.5 is chance.
        log_loss: Mean of minus the log of the probability of what happened; less is better.
        rounds: Boosting rounds that the model uses.
    """

    auc: float
    log_loss: float
    rounds: int


def make_estimator(stage: Path, observers: Sequence[EventSink] = (), rounds: int = ROUNDS) -> XGBEstimator:
    """Return the estimator, with nothing said about workers: all cores, or the cluster where there is one."""
    return XGBEstimator(
        n_estimators=rounds,
        params=PARAMS,
        early_stopping_rounds=PATIENCE,
        artifact_stage_location=str(stage),
        observers=observers,
    )


def fit_with_shardfit(estimator: XGBEstimator, train: Path, held_out: Path, verbose_eval: int = 10) -> None:
    """Train on the files of eleven months, and stop when the held-out month no longer gets better."""
    estimator.fit(
        dataset=DataConnector.from_parquet(train),
        input_cols=list(FEATURES),
        label_col=LABEL,
        eval_set={"held_out": DataConnector.from_parquet(held_out)},
        categorical_cols=list(CATEGORICAL),
        verbose_eval=verbose_eval,
    )


def score_shardfit(estimator: XGBEstimator, held_out: Path) -> Scores:
    """Return the scores of the estimator's predictions on the held-out month."""
    probability = estimator.predict(DataConnector.from_parquet(held_out)).to_numpy()
    label = pq.read_table(held_out, columns=[LABEL])[LABEL].to_numpy()
    return score(label, probability, estimator.result.model.best_iteration + 1)


def score_plain_xgboost(train: Path, held_out: Path) -> Scores:
    """Train plain XGBoost with the same parameters on the same rows, all in memory, and return its scores."""
    import pandas as pd
    import xgboost as xgb

    tables = [pd.read_parquet(train), pd.read_parquet(held_out)]
    for column in CATEGORICAL:
        categories = sorted(set().union(*(table[column].unique() for table in tables)))
        for table in tables:
            table[column] = pd.Categorical(table[column], categories)
    matrices = [xgb.DMatrix(table[list(FEATURES)], table[LABEL], enable_categorical=True) for table in tables]
    booster = xgb.train(
        PARAMS,
        matrices[0],
        num_boost_round=ROUNDS,
        evals=[(matrices[1], "held_out")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    rounds = booster.best_iteration + 1
    probability = booster.predict(matrices[1], iteration_range=(0, rounds))
    return score(tables[1][LABEL].to_numpy(), probability, rounds)


def score(label: npt.NDArray[Any], probability: npt.NDArray[Any], rounds: int) -> Scores:
    """Return the scores of predicted probabilities.

    Args:
        label: 0 or 1, shape [rows].
        probability: Between 0 and 1, shape [rows].
        rounds: Boosting rounds that were used.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    probability = np.asarray(probability, dtype=np.float64)
    return Scores(float(roc_auc_score(label, probability)), float(log_loss(label, probability)), rounds)

"""One worker of test_metrics_over_workers.py: evaluates metrics on its rows, over XGBoost's own communicator."""

import json
import sys

import numpy as np
from xgboost import collective

from shardfit.metrics import Reducer, metric_named

NAMES = ["auc", "aucpr", "logloss", "rmse", "poisson-nloglik"]


def values(start: int, stop: int, reducer: Reducer) -> list[str]:
    """Return the bits of each metric over rows `start` to `stop` of a table that every worker can make."""
    random = np.random.default_rng(19)
    predictions = np.round(random.random(50_000), 4).astype(np.float32)
    labels = (random.random(50_000) < predictions).astype(np.float32)
    weights = random.random(50_000).astype(np.float32)
    rows = slice(start, stop)
    return [
        metric_named(name).evaluate(predictions[rows], labels[rows], weights[rows], reducer=reducer).hex()
        for name in NAMES
    ]


def main() -> None:
    """Join the others, evaluate, and print the bits."""
    meeting, bounds = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    with collective.CommunicatorContext(**meeting):
        rank = collective.get_rank()
        reducer = Reducer(rank, len(bounds) - 1, lambda parts: collective.allreduce(parts, collective.Op.SUM))
        print(json.dumps(values(bounds[rank], bounds[rank + 1], reducer)))


if __name__ == "__main__":
    main()

"""One training for `benchmarks.linear_cost`, in a process of its own; prints what it took as a line of JSON.

python -m benchmarks.linear_cost_run xgboost 1000000 28 --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.memory_shapes import Shape, make_data, params_of
from shardfit.job import Job
from shardfit.train import train

ROUNDS = 10


def run(shape: Shape, data: Path) -> dict[str, float]:
    """Train once; return what it took from the call to the result.

    The libraries are imported before: that takes seconds that vary from run to run as much as a million rows cost. A
    whole training would leave memory in the allocators that counted here.

    Args:
        shape: What to train on.
        data: Folder of the generated tables.

    Returns:
        CPU seconds, and the peak of the process in bytes.
    """
    import_module(f"shardfit_{shape.trainer}.trainer")
    source = make_data(data, shape.rows, shape)
    with TemporaryDirectory(prefix="shardfit-linear-") as stage:
        fields: dict[str, Any] = {
            "trainer": shape.trainer,
            "data": str(source),
            "columns": {"label": "label"},
            "params": {**params_of(shape), "n_estimators": ROUNDS},
            "engine": "inline",
            # The work is what is to be seen, not how threads wait for each other.
            "cpus_per_worker": 1,
            "stage": stage,
            "checkpoint_every_seconds": 0,
        }
        worked = time.process_time()
        result = train(Job(**fields))
        worked = time.process_time() - worked
    return {"cpu_seconds": worked, "peak_bytes": max(result.peak_memory.values())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainer")
    parser.add_argument("rows", type=int)
    parser.add_argument("columns", type=int)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(json.dumps(run(Shape(options.trainer, options.rows, options.columns), options.data)))

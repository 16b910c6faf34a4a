"""Ray Train as in `ray_train`, but its controller looks for reports ten times a second, not every two seconds.

A worker waits in `report`, which the documented callback calls after each round, until its last report was fetched.
So the recipe as documented takes at least two seconds a round; this is what Ray Train takes without that wait.
"""

from __future__ import annotations

import os

from benchmarks.contestants.ray_train import main

if __name__ == "__main__":
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    main()

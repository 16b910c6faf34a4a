import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from xgboost.tracker import RabitTracker

WORKER = Path(__file__).with_name("metric_worker.py")


@pytest.mark.parametrize("bounds", [[0, 50_000], [0, 17, 17, 50_000]], ids=["one worker", "three, one without rows"])
def test_metrics_are_the_same_bits_over_the_communicator_of_xgboost(bounds: list[int]) -> None:
    tracker = RabitTracker(n_workers=len(bounds) - 1, host_ip="127.0.0.1")
    tracker.start()
    waiting = threading.Thread(target=tracker.wait_for, daemon=True)
    waiting.start()
    command = [sys.executable, str(WORKER), json.dumps(tracker.worker_args()), json.dumps(bounds)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in bounds[1:]]
    try:
        lines = [worker.communicate(timeout=100)[0].splitlines()[-1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    waiting.join(30)
    expected = json.loads(alone())
    assert [json.loads(line) for line in lines] == [expected] * len(workers)


def alone() -> str:
    code = "import json; from metric_worker import *; print(json.dumps(values(0, 50_000, Reducer())))"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=WORKER.parent, capture_output=True, text=True, check=True, timeout=100
    )
    return finished.stdout.splitlines()[-1]

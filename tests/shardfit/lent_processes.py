"""A plugin of pytest that lends processes of this machine to kits that would start a Ray cluster: `-p` and its name.

The kits try fewer examples: what they find is tested where they are, and here that what is written passes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardfit.testing import ScalingKit, ShardingKit, SourceKit, StoreKit, trainer_kit
from tests.shardfit import worker_processes
from tests.shardfit.worker_processes import PRELOADED, training_on


@contextmanager
def no_cluster(cpus: int) -> Iterator[str]:
    yield "no cluster: workers are processes"


trainer_kit.ray_cluster = no_cluster  # type: ignore[assignment]
# Those of frameworks, which the trainers here do without, take longest.
worker_processes.PRELOADED = [name for name in PRELOADED if not name.startswith(("shardfit_", "torch"))]
for kit in (ScalingKit, ShardingKit, SourceKit, StoreKit):
    kit.max_examples = 5


@pytest.fixture(autouse=True)
def lent_processes() -> Iterator[None]:
    with training_on(4):
        yield

"""A plugin of pytest that lends processes of this machine to kits that would start a Ray cluster: `-p` and its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardfit.testing import trainer_kit
from tests.shardfit.worker_processes import training_on


@contextmanager
def no_cluster(cpus: int) -> Iterator[str]:
    yield "no cluster: workers are processes"


trainer_kit.ray_cluster = no_cluster  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def lent_processes() -> Iterator[None]:
    with training_on(4):
        yield

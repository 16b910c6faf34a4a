"""The smallest trainer passes the kit that a stranger's must pass."""

from __future__ import annotations

from typing import ClassVar

import pytest

from shardfit.testing import TrainerKit
from shardfit.testing.mean_trainer import MeanTrainer
from shardfit.trainer import Trainer


class TestMeanTrainer(TrainerKit):
    params: ClassVar = {"smoothing": 2.0}
    misspelt = ("smothing", "smoothing")
    no_checkpoints = "It makes one pass: there is nothing to go on from."

    def make_trainer(self) -> Trainer:
        return MeanTrainer()

    @pytest.fixture
    def cluster(self, ray_address: str) -> str:
        return ray_address

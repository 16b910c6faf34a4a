"""The LightGBM trainer passes the kit that a stranger's must pass."""

from __future__ import annotations

from typing import ClassVar

import pytest

from shardfit.testing import TrainerKit
from shardfit.trainer import Trainer
from shardfit_lightgbm.trainer import LightGBMTrainer
from tests.shardfit.worker_processes import ProcessEngine


class TestLightGBMTrainer(TrainerKit):
    params: ClassVar = {"num_iterations": 4, "num_leaves": 15, "bagging_fraction": 0.8, "bagging_freq": 1}
    misspelt = ("num_leafs", "num_leaves")

    def make_trainer(self) -> Trainer:
        return LightGBMTrainer()

    @pytest.fixture
    def cluster(self, four_processes: ProcessEngine) -> ProcessEngine:
        return four_processes

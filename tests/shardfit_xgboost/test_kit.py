"""The XGBoost trainer passes the kit that a stranger's must pass."""

from __future__ import annotations

from typing import ClassVar

import pytest

from shardfit.testing import TrainerKit
from shardfit.trainer import Trainer
from shardfit_xgboost.trainer import XGBTrainer
from tests.shardfit.worker_processes import ProcessEngine


class TestXGBTrainer(TrainerKit):
    params: ClassVar = {"n_estimators": 4, "max_depth": 4, "subsample": 0.8}
    misspelt = ("max_detph", "max_depth")

    def make_trainer(self) -> Trainer:
        return XGBTrainer()

    @pytest.fixture
    def cluster(self, four_processes: ProcessEngine) -> ProcessEngine:
        return four_processes

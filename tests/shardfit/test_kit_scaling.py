"""The default policy passes the kit that a stranger's must pass."""

from __future__ import annotations

from shardfit.default_scaling import DefaultScalingPolicy
from shardfit.scaling import ScalingPolicy
from shardfit.testing import ScalingKit


class TestDefaultScalingPolicy(ScalingKit):
    def make_policy(self) -> ScalingPolicy:
        return DefaultScalingPolicy()

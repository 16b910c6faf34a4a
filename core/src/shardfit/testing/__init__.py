"""What plugin authors test their plugins with: conformance kits, Hypothesis strategies and fakes.

The kits need pytest and Hypothesis (`pip install 'shardfit[testing]'`) and are imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardfit.testing.scaling_kit import ScalingKit
    from shardfit.testing.sharding_kit import ShardingKit
    from shardfit.testing.source_kit import SourceKit
    from shardfit.testing.store_kit import StoreKit
    from shardfit.testing.trainer_kit import TrainerKit

__all__ = ["ScalingKit", "ShardingKit", "SourceKit", "StoreKit", "TrainerKit"]

_MODULES = {name: f"{__name__}.{name.removesuffix('Kit').lower()}_kit" for name in __all__}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

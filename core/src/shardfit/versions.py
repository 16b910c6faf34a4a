"""Which versions of what are installed: for run records and manifests."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import distributions

_LIBRARIES = frozenset({"lightgbm", "numpy", "pyarrow", "ray", "torch", "xgboost", "xgboost-cpu"})


@cache
def installed_versions() -> dict[str, str]:
    """Return the versions of Python, shardfit, its plugins and the libraries beneath, by distribution."""
    found = {"python": platform.python_version()}
    for distribution in distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if name in _LIBRARIES or name.startswith("shardfit"):
            found[name] = distribution.version
    return dict(sorted(found.items()))

"""What importing loads, in a fresh interpreter: nothing slow that was not asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = (
    "ray",
    "xgboost",
    "lightgbm",
    "pandas",
    "polars",
    "duckdb",
    "sklearn",
    "torch",
    "obstore",
    "mlflow",
    "hypothesis",
    "pyarrow.dataset",
)


def slow_modules_after(statement: str) -> list[str]:
    code = f"import sys\n{statement}\nprint(*[name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import shardfit",
        "import shardfit.train",
        "import shardfit.worker",
        "import shardfit.cli",
        "import shardfit_xgboost",
        "import shardfit_xgboost.hooks",
        "import shardfit_lightgbm",
        "import shardfit_lightgbm.hooks",
        "import shardfit_pytorch",
        "import shardfit_pytorch.hooks",
        "import shardfit_stages",
        "import shardfit_stages.hooks",
        "import shardfit.engines",
        "import shardfit.testing",
    ],
)
def test_importing_loads_no_framework_no_engine_and_no_dataframe_library(statement: str) -> None:
    assert slow_modules_after(statement) == []


def test_a_registry_of_every_installed_plugin_loads_no_framework() -> None:
    statement = "from shardfit.registry import Registry\nRegistry().discover()"
    assert slow_modules_after(statement) == []


def test_a_library_that_is_loaded_is_seen() -> None:
    assert slow_modules_after("import sys, types\nsys.modules['ray'] = types.ModuleType('ray')") == ["ray"]

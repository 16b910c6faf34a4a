"""What a worker's own process does without, and what the user's keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shardfit.dedicated_process import doing_without, is_dedicated

FOR_GOOD = """
import gc
from shardfit.dedicated_process import dedicate_process, importing_for_good
if {dedicated}:
    dedicate_process()
with importing_for_good():
    print(gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
PROGRAM = """
import sys
import pyarrow as pa
from shardfit.dedicated_process import dedicate_process
if {dedicated}:
    dedicate_process()
import {plugin}.trainer
print("sklearn" in sys.modules, pa.default_memory_pool().backend_name == "system")
import sklearn
print(sklearn.__name__)
"""


@pytest.mark.parametrize("plugin", ["shardfit_lightgbm", "shardfit_xgboost"])
@pytest.mark.parametrize("dedicated", [True, False])
def test_a_dedicated_process_imports_the_framework_without_scikit_learn(plugin: str, dedicated: bool) -> None:
    program = PROGRAM.format(plugin=plugin, dedicated=dedicated)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(not dedicated), str(dedicated), "sklearn"]


def test_this_process_is_the_users() -> None:
    assert not is_dedicated()


def test_packages_are_absent_for_a_while_and_then_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with doing_without("this", "sys"):
        with pytest.raises(ImportError):
            import this  # noqa: F401
        import sys as again
    assert again is sys
    assert "this" not in sys.modules


@pytest.mark.parametrize("dedicated", [True, False])
def test_what_a_dedicated_process_imports_for_good_is_left_to_it(dedicated: bool) -> None:
    program = FOR_GOOD.format(dedicated=dedicated)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(not dedicated), "True", str(dedicated)]

"""Every distribution installs alone: wheels, in environments that have nothing else but what they say they need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

# One process builds the wheels and the environment of the core once for all tests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("wheels")]

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "shardfit": ROOT / "core",
    "shardfit-xgboost": ROOT / "plugins" / "xgboost",
    "shardfit-lightgbm": ROOT / "plugins" / "lightgbm",
    "shardfit-sklearn": ROOT / "examples" / "shardfit-sklearn",
}
JOB = """
trainer = "{trainer}"
data = "rows.parquet"
engine = "inline"
stage = "stage"

[columns]
label = "y"

[params]
{params}
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of the one that runs the tests."""

    folder: Path

    @property
    def packages(self) -> Path:
        names = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", "venv", names))

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        python = self.folder / "bin" / "python"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SHARDFIT"))}
        return subprocess.run([python, "-I", *arguments], cwd=folder, env=environ, capture_output=True, text=True)

    def shardfit(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from shardfit.cli import main; main()", *arguments, folder=folder)

    def install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python"), "install", "--quiet"]
        subprocess.run([*pip, *arguments], check=True)


def build(destination: Path, *packages: Path) -> None:
    """Build the wheels of some packages into a folder, with the setuptools that is here: `make setup` gets its own."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(destination), *map(str, packages)], check=True)


def requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        (name,) = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(content.read(name)).get_all("Requires-Dist", [])


def needed(requirements: Iterable[str], extras: Iterable[str] = ()) -> set[str]:
    """Everything that pip would install for some requirements, and for theirs, but nothing of this repository."""
    found: set[str] = set()
    waiting = [(text, tuple(extras)) for text in requirements]
    seen = set()
    while waiting:
        seen.add(here := waiting.pop())
        need = Requirement(here[0])
        asked = not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in ("", *here[1]))
        if asked and not need.name.startswith("shardfit"):
            found.add(need.name)
            more = [(text, tuple(sorted(need.extras))) for text in distribution(need.name).requires or []]
            waiting += [each for each in more if each not in seen]
    return found


def lend(folder: Path, distributions: Iterable[str]) -> None:
    """Link the files of distributions, which are large and the same wherever they are installed, into a folder."""
    for name in distributions:
        here = distribution(name)
        for top in {file.parts[0] for file in here.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(here.locate_file(top)))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution -> its wheel, built from a copy, so that nothing that was built before gets in."""
    folder = tmp_path_factory.mktemp("wheels")
    copies = []
    for name, source in DISTRIBUTIONS.items():
        copies.append(shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("build", "*.egg-info")))
    build(folder / "built", *copies)
    built = {path.name.split("-")[0].replace("_", "-"): path for path in (folder / "built").glob("*.whl")}
    assert set(built) == set(DISTRIBUTIONS)
    return built


@pytest.fixture(scope="session")
def core_alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The core with everything that it says it depends on, and nothing else."""
    made = Environment(tmp_path_factory.mktemp("core"))
    venv.create(made.folder)
    lend(made.packages, needed(requirements_of(wheels["shardfit"])))
    made.install("--no-deps", str(wheels["shardfit"]))
    return made


def with_plugin(core: Environment, folder: Path, *wheels: Path) -> Environment:
    """The environment of the core with the first of some wheels on top, and with what all of them need."""
    made = Environment(folder / "environment")
    venv.create(made.folder)
    lent = folder / "lent"
    lent.mkdir()
    lend(lent, needed(text for wheel in wheels for text in requirements_of(wheel)))
    (made.packages / "below.pth").write_text(f"{core.packages}\n{lent}\n")
    made.install("--no-deps", str(wheels[0]))
    return made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder with data."""
    x = np.arange(500) % 17
    pq.write_table(pa.table({"x": x, "y": x * 2.0 + 1}), tmp_path / "rows.parquet")
    return tmp_path


def train(environment: Environment, folder: Path, trainer: str, params: str) -> subprocess.CompletedProcess[str]:
    (folder / "job.toml").write_text(JOB.format(trainer=trainer, params=params))
    return environment.shardfit("train", "job.toml", "--json", folder=folder)


def plugins(environment: Environment) -> dict[str, str]:
    done = environment.shardfit("plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {plugin["name"]: plugin["error"] for plugin in json.loads(done.stdout)["plugins"]}


def missing_requirements(environment: Environment, distribution: str) -> list[str]:
    """What pip would still install; the same that `pip check` says, for one distribution."""
    code = (
        "import sys\n"
        "from importlib.metadata import PackageNotFoundError, requires, version\n"
        "from packaging.requirements import Requirement\n"
        "for text in requires(sys.argv[1]) or []:\n"
        "    need = Requirement(text)\n"
        "    if need.marker and not need.marker.evaluate({'extra': ''}): continue\n"
        "    try: found = version(need.name)\n"
        "    except PackageNotFoundError: found = ''\n"
        "    if not found or not need.specifier.contains(found): print(text)\n"
    )
    return environment.run("-c", code, distribution).stdout.splitlines()


def test_the_core_alone_imports_every_module_and_shows_its_plugins(core_alone: Environment) -> None:
    code = (
        "import importlib, pkgutil, shardfit\n"
        "optional = ('shardfit.testing', 'shardfit.engines.ray')\n"
        "for module in pkgutil.walk_packages(shardfit.__path__, 'shardfit.'):\n"
        "    if not module.name.startswith(optional): importlib.import_module(module.name)\n"
        "print(shardfit.__file__)"
    )
    done = core_alone.run("-c", code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(core_alone.folder)
    assert plugins(core_alone) == {"builtin": ""}
    assert missing_requirements(core_alone, "shardfit") == []


def test_the_core_alone_says_what_to_install_for_xgboost(core_alone: Environment, rows: Path) -> None:
    done = train(core_alone, rows, "xgboost", "n_estimators = 2")
    assert done.returncode == 2
    assert "pip install shardfit-xgboost" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_core_alone_writes_a_new_plugin_that_is_found(
    core_alone: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    done = core_alone.shardfit("new-plugin", "tiny", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    package, built = tmp_path / "shardfit-tiny", tmp_path / "built"
    build(built, package)
    (wheel,) = built.glob("*.whl")
    found = with_plugin(core_alone, tmp_path, wheel)
    assert plugins(found) == {"builtin": "", "tiny": ""}
    assert missing_requirements(found, "shardfit-tiny") == []
    # Of what builds it, `build` made no use.
    systems = [
        tomllib.loads((folder / "pyproject.toml").read_text())["build-system"] for folder in (package, ROOT / "core")
    ]
    assert systems[0] == systems[1]


def test_the_core_trains_with_the_xgboost_plugin_and_then_with_the_lightgbm_plugin_too(
    core_alone: Environment, wheels: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    environment = with_plugin(core_alone, tmp_path, wheels["shardfit-xgboost"], wheels["shardfit-lightgbm"])
    assert plugins(environment) == {"builtin": "", "xgboost": ""}
    assert missing_requirements(environment, "shardfit-xgboost") == []
    done = train(environment, rows, "xgboost", "n_estimators = 2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["coverage"]["train"]["exact"]
    without = train(environment, rows, "lightgbm", "n_estimators = 2")
    assert without.returncode == 2
    assert "pip install shardfit-lightgbm" in without.stderr
    # In the same environment, because making one takes longer than all the rest.
    environment.install("--no-deps", str(wheels["shardfit-lightgbm"]))
    assert plugins(environment) == {"builtin": "", "lightgbm": "", "xgboost": ""}
    assert missing_requirements(environment, "shardfit-lightgbm") == []
    done = train(environment, rows, "lightgbm", "n_estimators = 2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["coverage"]["train"]["exact"]


def test_the_xgboost_plugin_trains_with_the_wheel_for_cpus(
    core_alone: Environment, wheels: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    """`xgboost-cpu` is another distribution with the same package; here it is the one that is imported."""
    environment = with_plugin(core_alone, tmp_path, wheels["shardfit-xgboost"])
    environment.install("--no-deps", "xgboost-cpu>=3.2,<3.3")
    imported = environment.run("-c", "import xgboost; print(xgboost.__file__, xgboost.build_info()['USE_CUDA'])")
    assert imported.stdout.split() == [str(environment.packages / "xgboost" / "__init__.py"), "False"]
    done = train(environment, rows, "xgboost", "n_estimators = 2")
    assert done.returncode == 0, done.stderr


def test_the_core_and_the_example_train(
    core_alone: Environment, wheels: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    environment = with_plugin(core_alone, tmp_path, wheels["shardfit-sklearn"])
    assert plugins(environment) == {"builtin": "", "sklearn": ""}
    assert missing_requirements(environment, "shardfit-sklearn") == []
    done = train(environment, rows, "linear", 'estimator = "linear"')
    assert done.returncode == 0, done.stderr
    (stored,) = rows.glob("stage/**/model.json")
    assert json.loads(stored.read_text())["coefficients"] == pytest.approx([2.0])

"""The packages of this repository fit each other, and the core needs no framework."""

from __future__ import annotations

import importlib
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from shardfit import hookspecs

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {"xgboost", "lightgbm", "torch", "scikit-learn", "ray", "pandas", "polars", "duckdb"}


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


CORE = read(ROOT / "core" / "pyproject.toml")
# A plugin's folder is its short name; a distribution among the examples lies in a folder of its whole name.
FOLDERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))}
FOLDERS |= {path.parent.name: path.parent for path in sorted(ROOT.glob("examples/*/pyproject.toml"))}
PLUGINS = {name: read(folder / "pyproject.toml") for name, folder in FOLDERS.items()}
ENTRY_POINTS = [
    (plugin, name, module)
    for plugin, settings in PLUGINS.items()
    for name, module in settings["project"].get("entry-points", {}).get("shardfit", {}).items()
]


def distribution(requirement: str) -> str:
    """Name of what a requirement asks for, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def is_hook(module: object, name: str) -> bool:
    return hasattr(hookspecs, name) and hasattr(getattr(module, name), f"{hookspecs.PROJECT}_impl")


def test_every_package_has_the_version_of_the_core() -> None:
    versions = {name: settings["project"]["version"] for name, settings in PLUGINS.items()}
    assert versions == dict.fromkeys(PLUGINS, CORE["project"]["version"])


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_needs_the_minor_version_of_the_core_that_it_was_made_with(plugin: str) -> None:
    version = CORE["project"]["version"]
    major, minor = map(int, version.split(".")[:2])
    needed = [need for need in PLUGINS[plugin]["project"]["dependencies"] if distribution(need) == "shardfit"]
    following = f"{major}.{minor + 1}"
    assert needed == [f"shardfit>={version},<{following}"]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_distribution_and_import_package_are_named_after_the_folder(plugin: str) -> None:
    name = PLUGINS[plugin]["project"]["name"]
    assert name == f"shardfit-{plugin.removeprefix('shardfit-')}"
    assert (FOLDERS[plugin] / "src" / name.replace("-", "_") / "__init__.py").is_file()


@pytest.mark.parametrize("settings", [CORE, *PLUGINS.values()], ids=lambda settings: str(settings["project"]["name"]))
def test_every_package_says_that_it_is_typed(settings: dict[str, Any]) -> None:
    package = settings["project"]["name"].replace("-", "_")
    assert settings["tool"]["setuptools"]["package-data"][package][0] == "py.typed"
    assert [path for path in ROOT.glob(f"**/src/{package}/py.typed") if "build" not in path.parts]


def test_the_core_depends_on_no_framework() -> None:
    assert {distribution(need) for need in CORE["project"]["dependencies"]} & FRAMEWORKS == set()


def test_a_name_is_read_from_a_requirement() -> None:
    needs = ["xgboost>=3.2,<3.3", "scikit_learn ; python_version > '3'", "ray[default]==2", "torch"]
    assert [distribution(need) for need in needs] == ["xgboost", "scikit-learn", "ray", "torch"]


@pytest.mark.parametrize(("plugin", "name", "module"), ENTRY_POINTS)
def test_an_entry_point_leads_to_a_module_with_hooks_and_is_installed(plugin: str, name: str, module: str) -> None:
    found = importlib.import_module(module)
    assert [each for each in vars(found) if is_hook(found, each)]
    assert (name, module) in {(entry.name, entry.value) for entry in entry_points(group="shardfit")}


def test_the_plugins_and_the_example_are_looked_at() -> None:
    assert {"xgboost", "lightgbm", "shardfit-sklearn"} <= set(PLUGINS)


def test_every_plugin_has_an_entry_point() -> None:
    assert {plugin for plugin, _, _ in ENTRY_POINTS} == set(PLUGINS)

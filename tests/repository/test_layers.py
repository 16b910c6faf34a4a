"""Who may import whom, read from the sources: nothing on the path calls backwards."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "src"
PACKAGES = [CORE, *sorted(ROOT.glob("plugins/*/src"))]
FRAMEWORKS = ("xgboost", "lightgbm", "torch", "sklearn", "tensorflow")
ENGINES = ("ray", "shardfit.engine", "shardfit.engines")
LOWER_LAYERS = tuple(
    f"shardfit.{name}"
    for name in (
        "artifacts",
        "casts",
        "default_scaling",
        "scaling",
        "shard_plan",
        "sharding",
        "source",
        "sources",
        "stores",
    )
)
# What a Ray dataset holds can be reached through Ray alone; imported when such a dataset is used.
REACHES_RAY = "shardfit.sources.ray_dataset"


class _Imports(ast.NodeVisitor):
    """Collects imported names; leaves out what only the type checker sees, and functions where `deep` is False."""

    def __init__(self, deep: bool) -> None:
        self.names: set[str] = set()
        self._deep = deep

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        # Both, since `from shardfit import engines` imports a module too.
        self.names.update([node.module or ".", *(f"{node.module}.{alias.name}" for alias in node.names)])

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if self._deep:
            self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        if self._deep:
            self.generic_visit(node)


def imports_of(text: str, deep: bool = True) -> set[str]:
    visitor = _Imports(deep)
    visitor.visit(ast.parse(text))
    return visitor.names


@cache
def imports_in(path: Path, deep: bool = True) -> frozenset[str]:
    return frozenset(imports_of(path.read_text(encoding="utf-8"), deep))


def is_under(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def files_of(package: Path) -> Iterator[tuple[str, Path]]:
    """(module name, file) of every module of a package."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


CORE_FILES = dict(files_of(CORE))
ALL_FILES = dict(item for package in PACKAGES for item in files_of(package))
PLUGIN_FILES = {name: path for name, path in ALL_FILES.items() if name not in CORE_FILES}


def loaded_with(name: str) -> dict[str, list[str]]:
    """Everything that importing a core module imports, each with the way there. Functions are not run."""
    ways: dict[str, list[str]] = {name: [name]}
    waiting = [name]
    while waiting:
        here = waiting.pop()
        for found in imports_in(CORE_FILES[here], deep=False):
            if found not in ways:
                ways[found] = [*ways[here], found]
                if found in CORE_FILES:
                    waiting.append(found)
    return ways


def test_the_reader_of_imports_sees_every_kind() -> None:
    text = """
import ray.util
from xgboost import train
if TYPE_CHECKING:
    import pandas
def later():
    from shardfit import engines
"""
    assert imports_of(text) == {"ray.util", "xgboost", "xgboost.train", "shardfit", "shardfit.engines"}
    assert imports_of(text, deep=False) == {"ray.util", "xgboost", "xgboost.train"}
    assert is_under("ray.util", ENGINES)
    assert not is_under("rayon", ENGINES)


def test_every_package_is_looked_at() -> None:
    assert {"shardfit.shard_plan", "shardfit.engines.ray"} <= set(CORE_FILES)
    assert {"shardfit_xgboost.hooks", "shardfit_lightgbm.hooks"} <= set(PLUGIN_FILES)


def wrong(names: Iterable[str], forbidden: tuple[str, ...], deep: bool = True) -> list[str]:
    """The imports of some modules that are forbidden to them."""
    return [
        f"{name} imports {each}"
        for name in sorted(names)
        for each in sorted(imports_in(ALL_FILES[name], deep))
        if is_under(each, forbidden)
    ]


def test_a_forbidden_import_is_named() -> None:
    found = wrong(["shardfit.engines.ray", "shardfit.worker"], ("ray",))
    assert "shardfit.engines.ray imports ray" in found
    assert not [each for each in found if each.startswith("shardfit.worker ")]


def test_sources_sharding_scaling_and_artifacts_import_no_engine_and_no_framework() -> None:
    names = {name for name in CORE_FILES if is_under(name, LOWER_LAYERS)}
    assert len(names) > len(LOWER_LAYERS)
    assert wrong(names, FRAMEWORKS) + wrong(names - {REACHES_RAY}, ENGINES) == []
    # By way of other modules, too: what counts is what is loaded.
    ways = [loaded_with(name) for name in sorted(names)]
    forbidden = (*FRAMEWORKS, *ENGINES)
    assert [" -> ".join(found[each]) for found in ways for each in sorted(found) if is_under(each, forbidden)] == []


def test_only_the_ray_engine_imports_ray() -> None:
    assert wrong(ALL_FILES.keys() - {"shardfit.engines.ray"}, ("ray",)) == []


def test_the_core_imports_no_framework_and_no_plugin() -> None:
    plugins = tuple({plugin.split(".")[0] for plugin in PLUGIN_FILES})
    assert wrong(CORE_FILES, (*FRAMEWORKS, *plugins)) == []


def test_the_hooks_of_a_plugin_load_no_framework() -> None:
    own = tuple({plugin.split(".")[0] for plugin in PLUGIN_FILES})
    hooks = [name for name in PLUGIN_FILES if name.endswith(".hooks")]
    assert wrong(hooks, (*FRAMEWORKS, *own), deep=False) == []


def test_plugins_import_no_engine_beyond_its_contract() -> None:
    assert wrong(PLUGIN_FILES, ("ray", "shardfit.engines")) == []


def test_what_every_worker_runs_knows_neither_engine_nor_framework() -> None:
    assert wrong(["shardfit.worker"], ("ray", "shardfit.engines", *FRAMEWORKS)) == []


def test_hypothesis_is_imported_by_the_testing_package_alone() -> None:
    names = [name for name in ALL_FILES if not is_under(name, ("shardfit.testing",))]
    assert wrong(names, ("hypothesis", "pytest")) == []

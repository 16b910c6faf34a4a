"""`shardfit new-plugin` writes packages that are found when they are installed and pass the kit of their kind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardfit.cli import app
from shardfit.errors import InvalidArgumentError
from shardfit.new_plugin import PLUGIN_KINDS, write_plugin

ROOT = Path(__file__).parents[2]
PROVIDES = {
    "trainer": "trainers",
    "source": "sources",
    "sharding": "sharding_strategies",
    "scaling": "scaling_policies",
    "store": "artifact_stores",
}


def pretend_to_install(package: Path) -> str:
    """Make `package` installed where what this returns is on the path: its code and its metadata."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    information = package / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    requires = "".join(f"Requires-Dist: {need}\n" for need in project["dependencies"])
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{requires}"
    )
    entries = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["shardfit"].items())
    (information / "entry_points.txt").write_text(f"[shardfit]\n{entries}")
    return str(package / "src")


def run(arguments: list[str], folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_new_plugins_are_found_and_pass_their_kits(tmp_path: Path) -> None:
    for kind in PLUGIN_KINDS:
        write_plugin(f"own-{kind}", kind, tmp_path)
    packages = [tmp_path / f"shardfit-own-{kind}" for kind in PLUGIN_KINDS]
    path = os.pathsep.join([*map(pretend_to_install, packages), str(ROOT)])
    environ = {**os.environ, "PYTHONPATH": path}
    listed = run(["-c", "from shardfit.cli import main; main()", "plugins", "--json"], tmp_path, environ)
    found = {plugin["name"]: plugin for plugin in json.loads(listed)["plugins"]}
    for kind in PLUGIN_KINDS:
        plugin = found[f"own-{kind}"]
        assert (plugin["error"], plugin["provides"][PROVIDES[kind]]) == ("", [f"own-{kind}"])
    # The trainer's kit would start a Ray cluster, as that of the example `shardfit-sklearn` does.
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "tests.shardfit.lent_processes", "-rA"]
    report = run(["-m", "pytest", *options, *(str(package / "tests") for package in packages)], tmp_path, environ)
    assert "FAILED" not in report
    for package in packages:
        (tests,) = (package / "tests").glob("test_*.py")
        assert re.search(rf"^PASSED \S*{tests.name}::", report, re.MULTILINE)


def test_what_is_written_is_typed_formatted_and_whole(tmp_path: Path) -> None:
    written = [path for kind in PLUGIN_KINDS for path in write_plugin(f"own-{kind}", kind, tmp_path)]
    assert [path for path in written if "$" in path.read_text(encoding="utf-8")] == []
    packages, environ = [tmp_path / f"shardfit-own-{kind}" for kind in PLUGIN_KINDS], dict(os.environ)
    for package in packages:
        run(["-m", "ruff", "check", "--isolated", "--select=ANN,E,F,I,UP", "--ignore=ANN401,E501"], package, environ)
        run(["-m", "ruff", "format", "--isolated", "--check", "--line-length=120"], package, environ)
    # All at once, because reading the types of the core takes longer than all the rest.
    sources = [str(package / "src") for package in packages]
    run(
        ["-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"), *sources],
        tmp_path,
        {**environ, "MYPYPATH": os.pathsep.join(sources)},
    )


def test_the_command_lists_the_files_it_wrote(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["new-plugin", "tiny", "--kind", "source", "--folder", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    written = sorted(
        Path(name).relative_to(tmp_path / "shardfit-tiny").as_posix() for name in json.loads(done.stdout)["files"]
    )
    assert written == [
        "README.md",
        "pyproject.toml",
        "src/shardfit_tiny/__init__.py",
        "src/shardfit_tiny/hooks.py",
        "src/shardfit_tiny/py.typed",
        "src/shardfit_tiny/source.py",
        "tests/test_source.py",
    ]


@pytest.mark.parametrize("name", ["", "My", "a_b", "a--b", "-a", "9a", "../a", "a b"])
def test_a_name_that_no_distribution_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the name cannot be used"):
        write_plugin(name, "trainer", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_and_a_folder_that_exists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'trainers'.*trainer, source"):
        write_plugin("a", "trainers", tmp_path)
    write_plugin("a", "source", tmp_path)
    with pytest.raises(InvalidArgumentError, match="shardfit-a'"):
        write_plugin("a", "source", tmp_path)

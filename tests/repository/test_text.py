"""What no file of a package may say: where it was written, where packages come from, what is not done yet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "core", "plugins", "benchmarks", "examples", "scripts", "docs")
TEXT = {".py", ".toml", ".md", ".txt", ".sh", ".cfg", ".json", ".yaml", ".yml", ""}
BUILT = {"__pycache__", "build", "dist", ".demo", ".bench"}

MACHINE_PATH = re.compile(r"(?<![\w.:/}*<>-])/(?:work|root|home|tmp|Users|mnt|opt)\b(?:/|(?=[\"'\s`)]))")
PACKAGE_INDEX = re.compile(r"https?://[^\s\"']*(?:pypi|pythonhosted|simple/|index)|--(?:extra-)?index-url|--find-links")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|(?<!Arrow)\bNotImplementedError\b")
# Ray itself keeps its address and its sockets there, and a socket's path has at most 107 bytes.
WHERE_RAY_LIVES = {"core/src/shardfit/engines/discovery.py", "core/src/shardfit/testing/ray_cluster.py"}


def texts() -> list[Path]:
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    candidates = [*inside, *(path for path in ROOT.iterdir() if not path.name.startswith("."))]
    return sorted(
        path
        for path in candidates
        if path.is_file() and path.suffix in TEXT
        if not BUILT & set(path.parts) and not any(part.endswith(".egg-info") for part in path.parts)
    )


def lines_with(pattern: re.Pattern[str], text: str) -> list[str]:
    return [line for line in text.splitlines() if pattern.search(line)]


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        (MACHINE_PATH, 'open("/home/someone/a.csv")', "a/tmp/b and s3://root/x and ./tmp/ and $HOME/work/x"),
        (MACHINE_PATH, "written to '/tmp'", "the root/leaf and /workers/3"),
        (PACKAGE_INDEX, "https://pypi.example/simple/x", "https://docs.example/guide"),
        (PACKAGE_INDEX, "pip install --index-url x", "pip install --constraint constraints.txt"),
        (UNFINISHED, "# TODO: later", "todos"),
        (UNFINISHED, "raise NotImplementedError", "except pa.ArrowNotImplementedError:"),
    ],
)
def test_the_patterns_find_what_they_are_made_for_and_no_more(pattern: re.Pattern[str], bad: str, good: str) -> None:
    assert lines_with(pattern, bad) == [bad]
    assert lines_with(pattern, good) == []


def test_no_file_names_a_machine_or_a_package_index_or_is_unfinished() -> None:
    found = []
    for path in texts():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        for pattern in (MACHINE_PATH, PACKAGE_INDEX, UNFINISHED):
            if pattern is not MACHINE_PATH or name not in WHERE_RAY_LIVES:
                found += [f"{name}: {line.strip()}" for line in lines_with(pattern, text)]
    assert len(texts()) > 300
    assert found == []

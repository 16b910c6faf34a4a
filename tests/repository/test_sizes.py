"""A file that wants to be longer is two ideas; so is a function."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "plugins", "tests", "benchmarks", "examples", "scripts")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "build" not in path.parts)
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 50


def long_functions(text: str) -> list[str]:
    return [
        f"{node.name}: {lines} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]


def test_a_function_of_one_line_too_many_is_found() -> None:
    body = "    x = 1\n" * (MOST_LINES_OF_A_FUNCTION - 1)
    assert long_functions(f"def fits():\n{body}") == []
    assert long_functions(f"class A:\n  def long(self):\n{body}    x = 1\n") == ["long: 51 lines"]


def test_no_file_and_no_function_is_longer_than_one_idea() -> None:
    found = []
    for path in FILES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        if (lines := len(text.splitlines())) > MOST_LINES:
            found.append(f"{name}: {lines} lines")
        found += [f"{name}, {each}" for each in long_functions(text)]
    assert len(FILES) > 400
    assert found == []

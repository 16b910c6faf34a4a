"""The documentation runs, leads somewhere, and every public name says what it is.

Blocks of a page run in order, in one folder and one namespace:

* `python`: run. `text output` after it: what it prints; `...` stands for anything.
* `toml` whose first line is a comment with a file name: written there.
* `console`: each line `$ shardfit ...` is run; what follows is what it prints. `bash`: lines of `shardfit ...` are run.
* `python no-run: reason`: not run.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from scripts.draw_pictures import IMAGES, PICTURES
from shardfit.cli import app

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
# Its blocks are parts of plugins that do not exist; tests/shardfit/test_hooks.py checks them.
CHECKED_ELSEWHERE = {"hooks.md"}
# A command writes it.
GENERATED = {"invariance.md", "invariance_lightgbm.md"}
CONTRACTS = sorted((ROOT / "docs" / "contracts").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, *CONTRACTS]
MOST_LINES = {"README.md": 200}
SOURCES = sorted(path for path in ROOT.glob("**/src/shardfit*/**/*.py") if "build" not in path.parts)

ON_THE_PATH = {
    "train.py",
    "run.py",
    "run_plan.py",
    "source.py",
    "shard_plan.py",
    "worker.py",
    "trainer.py",
    "estimator.py",
}

FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
# What differs between machines and runs.
VARIES = (
    (re.compile(r"\d{8}-\d{12}-[0-9a-f]{16}"), "RUN"),
    (re.compile(r"'[^']*/(?=[^'/]+/[^'/]+')"), "'"),
    (re.compile(r"(?<=local)\s+(?:127\S+\s+)?\d+\s+\d+\s+[\d.]+ [KMG]iB"), " MACHINE"),
    (re.compile(r"\d+\.\d+(?:\.\d+)?"), "N"),
)


class Block(NamedTuple):
    info: str
    text: str
    line: int


def blocks_of(text: str) -> list[Block]:
    return [Block(m["info"].strip(), m["text"], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def same_output(wanted: str, found: str) -> bool:
    for pattern, word in VARIES:
        wanted, found = pattern.sub(word, wanted), pattern.sub(word, found)
    return doctest.OutputChecker().check_output(
        f"{wanted.strip()}\n", f"{found.strip()}\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )


class Page:
    """Runs the blocks of a page, one after another."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._space: dict[str, Any] = {"__name__": "__main__"}
        self._printed = ""

    def run(self, block: Block) -> None:
        kind = block.info.split()[0]
        if block.info == "python":
            self._run_python(block)
        elif block.info == "text output":
            assert same_output(block.text, self._printed), f"line {block.line} says:\n{block.text}\n{self._printed}"
        elif kind == "toml" and (file := re.match(r"# (\S+\.toml)\n", block.text)):
            Path(file[1]).write_text(block.text, encoding="utf-8")
        elif kind == "console":
            self._run_console(block)
        elif kind == "bash":
            for line in block.text.splitlines():
                if line.startswith("shardfit "):
                    self._shardfit(line)

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.text, self._name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self._space)
        self._printed = printed.getvalue()

    def _run_console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            found = self._shardfit(command)
            assert same_output(wanted, found), f"line {block.line}, {command}:\n{wanted}\n{found}"

    def _shardfit(self, command: str) -> str:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "shardfit", command
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{command}:\n{done.output}"
        return done.stdout


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory on a machine without cluster and GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDFIT_STAGE_ROOT", str(tmp_path / "stage"))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.parametrize("path", [p for p in PAGES if p.name not in CHECKED_ELSEWHERE], ids=name_of)
def test_every_block_of_a_page_runs_and_prints_what_the_page_says(path: Path, page_folder: Path) -> None:
    page = Page(name_of(path))
    for block in blocks_of(path.read_text(encoding="utf-8")):
        page.run(block)


def test_a_block_that_raises_or_prints_something_else_is_noticed(page_folder: Path) -> None:
    good, *bad = blocks_of("```python\nx = 1\nprint(x)\n```\n```text output\n2\n```\n```python\n\n1 / 0\n```\n")
    page = Page("page.md")
    page.run(good)
    with pytest.raises(AssertionError, match="line 6 says"):
        page.run(bad[0])
    with pytest.raises(ZeroDivisionError) as raised:
        page.run(bad[1])
    assert raised.traceback[-1].lineno == 9  # Counted from 0: the line of the page.
    with pytest.raises(AssertionError, match="No such command"):
        page.run(Block("console", "$ shardfit fly\n", 1))


def test_only_what_varies_is_left_out_of_the_comparison() -> None:
    assert same_output("took 1.5 s in ... rounds\n", "took 20.25 s in 7 rounds")
    assert same_output("Parquet 'houses/train'", "Parquet '/some/where/houses/train'")
    assert not same_output("10,000 rows", "10,001 rows")
    assert not same_output("Parquet 'houses/train'", "Parquet 'houses/eval'")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_is_short_says_why_a_block_does_not_run_and_has_one_that_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert len(text.splitlines()) <= MOST_LINES.get(path.name, 150)
    assert len(blocks) * 2 == len(re.findall(r"^```", text, re.MULTILINE)), "every block needs a language"
    unrun = [b.info for b in blocks if b.info.startswith("python ")]
    assert [info for info in unrun if not re.fullmatch(r"python no-run: \S.{9,}", info)] == []
    assert len(unrun) <= 1
    assert path.name in GENERATED or [b for b in blocks if b.info == "python"]


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name_of)
def test_every_link_leads_to_a_file_of_the_repository(path: Path) -> None:
    targets = [m["target"] for m in LINK.finditer(FENCE.sub("", path.read_text(encoding="utf-8")))]
    relative = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in relative if target and not (path.parent / target).is_file()] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCS if f"(docs/{path.name})" not in readme] == []


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_what_its_script_draws(name: str) -> None:
    assert (IMAGES / name).read_text(encoding="utf-8") == PICTURES[name]()


def test_the_table_of_casts_is_that_of_the_code() -> None:
    def rows(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("|")]

    from shardfit import casts

    assert rows(casts.__doc__ or "") == rows((ROOT / "docs" / "casts.md").read_text(encoding="utf-8"))


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    from shardfit import errors

    (tree,) = [b.text for b in blocks_of(f"{errors.__doc__}".replace("```\nS", "```text\nS", 1))]
    assert tree in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_event_is_in_the_table_of_events() -> None:
    from shardfit.events import Event

    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert [kind.__name__ for kind in Event.__subclasses__() if f"| `{kind.__name__}` |" not in page] == []


class Documented(NamedTuple):
    where: str
    node: ast.ClassDef | ast.FunctionDef
    text: str
    explained: str


def public_names(path: Path) -> Iterator[Documented]:
    """Public classes and functions of a module, and the public methods of its public classes."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    for node in module.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        yield Documented(f"{name_of(path)}: {node.name}", node, text, text)
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                own = ast.get_docstring(method) or ""
                yield Documented(f"{name_of(path)}: {node.name}.{method.name}", method, own, f"{own}\n{text}")


NAMES = [named for path in SOURCES for named in public_names(path)]


def parameters_of(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """Names that a docstring should explain: arguments of a function, or of what makes a class."""
    if isinstance(node, ast.ClassDef):
        init = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if init:
            return parameters_of(init[0])
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            return []
        fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
        return [target.id for target in fields if isinstance(target, ast.Name) and not target.id.startswith("_")]
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in arguments if argument.arg not in {"self", "cls"}]


def test_every_public_name_says_in_a_full_sentence_what_it_is() -> None:
    assert len(NAMES) > 400
    first = {named.where: re.split(r"\n\s*\n", named.text.strip(), maxsplit=1)[0] for named in NAMES}
    assert [where for where, text in first.items() if not re.fullmatch(r"[A-Z`\d].*[.:]", text, re.DOTALL)] == []


def test_every_function_on_the_path_explains_its_arguments() -> None:
    """Those of the files that a newcomer reads: in `Args:`, of their own or of their class, or in prose."""
    silent = []
    for named in NAMES:
        if named.where.partition(":")[0].removeprefix("core/src/shardfit/") not in ON_THE_PATH:
            continue
        arguments = parameters_of(named.node) if isinstance(named.node, ast.FunctionDef) else []
        if len(arguments) > 1:
            silent += [f"{named.where}({name})" for name in arguments if not re.search(rf"\b{name}\b", named.explained)]
    assert silent == []


def test_every_class_and_function_explains_its_parameters() -> None:
    """A section `Args:` names every parameter; a class that has several fields has such a section."""
    silent = []
    for named in NAMES:
        _, section, explained = named.text.partition("Args:")
        for parameter in parameters_of(named.node) if section else []:
            if not re.search(rf"^\s*\*{{0,2}}{re.escape(parameter)}:", explained, re.MULTILINE):
                silent.append(f"{named.where}({parameter})")
        fields = parameters_of(named.node) if isinstance(named.node, ast.ClassDef) else []
        if not section and [field for field in fields if field not in named.text]:
            silent.append(named.where)
    assert silent == []

"""Errors cross processes unharmed, have a standard parent, and are the tree that their file draws."""

from __future__ import annotations

import builtins
import copy
import importlib
import pickle
import pkgutil
import re
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest

import shardfit
from shardfit import errors
from shardfit.errors import InvalidArgumentError, ShardfitError, UnknownNameError

Drawn = dict[str, tuple[str | None, tuple[str, ...]]]


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what other libraries warn of while they are imported is not the subject
            yield importlib.import_module(found.name)


def exceptions_of(package: str) -> list[type[BaseException]]:
    """Every exception that a package defines, private ones included."""
    return sorted(
        {
            value
            for module in modules_of(importlib.import_module(package))
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.__name__
        },
        key=lambda kind: kind.__qualname__,
    )


def drawn_tree() -> Drawn:
    """Name -> (parent, standard parents), as the docstring of `errors` draws it."""
    drawing = re.findall(r"```\n(.*?)```", errors.__doc__ or "", re.DOTALL)[0]
    tree: Drawn = {}
    above: list[str] = []
    for line in drawing.splitlines():
        found = re.match(r"([\s│├└─]*)(\w+)(?: \((\w+(?:, \w+)*)\))?", line)
        assert found, line
        depth = len(found[1]) // 4
        above[depth:] = [found[2]]
        standard = tuple(found[3].split(", ")) if found[3] else ()
        tree[found[2]] = (above[depth - 1] if depth else None, standard)
    return tree


def real_tree() -> Drawn:
    """The same, from the classes."""
    tree: Drawn = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, ShardfitError):
            parents = [base.__name__ for base in kind.__bases__ if issubclass(base, ShardfitError)]
            standard = tuple(base.__name__ for base in kind.__bases__ if hasattr(builtins, base.__name__))
            tree[name] = (parents[0] if parents else None, () if kind is ShardfitError else standard)
    return tree


EVERY_EXCEPTION = exceptions_of("shardfit") + exceptions_of("shardfit_xgboost")
EVERY_ERROR = [kind for kind in EVERY_EXCEPTION if issubclass(kind, ShardfitError)]
OTHERS = [kind for kind in EVERY_EXCEPTION if not issubclass(kind, ShardfitError)]
copies = pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "deep", "pickle"]
)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert drawn_tree() == real_tree()
    assert len(drawn_tree()) > 20


def test_every_error_of_the_core_is_in_the_file_of_errors() -> None:
    assert [kind.__qualname__ for kind in EVERY_ERROR if kind.__module__ != "shardfit.errors"] == []


@copies
@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_survives_with_all_that_it_says(kind: type[ShardfitError], again: object) -> None:
    error = kind("reading 'a.parquet', row group 3", "page 2 is corrupt: b'\\x00'", "Write the file again.")
    error.add_note("raised on worker 1")
    assert callable(again)
    twin = again(error)
    assert type(twin) is kind
    assert str(twin) == "reading 'a.parquet', row group 3: page 2 is corrupt: b'\\x00'. Write the file again."
    assert (twin.asked, twin.found, twin.advice) == (error.asked, error.found, error.advice)
    assert twin.__notes__ == ["raised on worker 1"]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_without_advice_ends_with_what_was_found(kind: type[ShardfitError]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("asked", "found")))) == "asked: found"


@copies
@pytest.mark.parametrize("kind", OTHERS)
def test_exceptions_that_are_no_error_of_the_tree_survive_too(kind: type[BaseException], again: object) -> None:
    error = kind("what happened")
    assert callable(again)
    assert str(again(error)) == str(error)


@pytest.mark.parametrize("kind", [kind for kind in EVERY_ERROR if kind is not ShardfitError])
def test_an_error_can_be_caught_by_a_standard_name(kind: type[ShardfitError]) -> None:
    standard = [base for base in kind.__mro__ if hasattr(builtins, base.__name__) and base is not object]
    assert any(base not in (Exception, BaseException) for base in standard)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_says_in_its_docstring_what_it_means(kind: type[ShardfitError]) -> None:
    assert (kind.__doc__ or "").strip().split("\n")[0].endswith(".")


def test_a_misspelt_name_is_caught_as_a_wrong_argument_and_as_a_failed_look_up() -> None:
    error = UnknownNameError("looking up trainer 'xgbost'", "there is none", "Did you mean 'xgboost'?")
    assert isinstance(error, InvalidArgumentError)
    assert isinstance(error, ValueError)
    assert isinstance(error, LookupError)


def test_the_package_under_test_is_the_one_of_this_repository() -> None:
    assert {kind.__module__.split(".")[0] for kind in EVERY_ERROR} == {shardfit.__name__}

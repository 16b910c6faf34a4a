"""The user's loop as a value: called with the context or without, and taken to workers wherever it was written."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle

from shardfit.errors import InvalidArgumentError


@dataclass(frozen=True)
class UserLoop:
    """A function that trains; pickled by value where it is not part of a module that workers can import.

    Args:
        function: Takes the context, or nothing.
        takes_context: Which of the two.
    """

    function: Callable[..., Any]
    takes_context: bool

    @classmethod
    def of(cls, function: Any) -> UserLoop:
        """Return the loop that a function is.

        Raises:
            InvalidArgumentError: It cannot be called, or needs more than the context.
        """
        if not callable(function):
            raise InvalidArgumentError("reading train_func", f"found {function!r}", "Pass a function.")
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(
                "reading train_func", f"the arguments of {function!r} are not known", "Wrap it in a function."
            ) from error
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [each for each in parameters if each.default is each.empty and each.kind in positional]
        keywords = [each.name for each in parameters if each.default is each.empty and each.kind is each.KEYWORD_ONLY]
        if len(needed) > 1 or keywords:
            names = [*(each.name for each in needed), *keywords]
            raise InvalidArgumentError(
                "reading train_func",
                f"{_name(function)} needs the arguments {', '.join(names)}",
                "It is called with the context or with nothing; pass values as hyper_params.",
            )
        return cls(function, bool(needed))

    def __call__(self, context: Any) -> Any:
        """Run the loop."""
        return self.function(context) if self.takes_context else self.function()

    def check_pickles(self) -> None:
        """Check that workers can be given the loop.

        Raises:
            InvalidArgumentError: They cannot; says which value that it uses is why.
        """
        self._dumps()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._dumps(), self.takes_context)

    def _dumps(self) -> bytes:
        try:
            pickled: bytes = cloudpickle.dumps(self.function)
        except Exception as error:
            why = _culprits(self.function) or [f"{type(error).__name__}: {error}"]
            raise InvalidArgumentError(
                f"taking train_func {_name(self.function)} to workers",
                f"it cannot be pickled: {'; '.join(why)}",
                "Make such values inside the loop, or pass what they are made from as hyper_params.",
            ) from error
        return pickled


def _load(pickled: bytes, takes_context: bool) -> UserLoop:
    return UserLoop(cloudpickle.loads(pickled), takes_context)


def _culprits(function: Any) -> list[str]:
    """Say which of the values that a function uses cannot be pickled, and why each."""
    found = []
    for where, value in _used_values(function):
        try:
            cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - whatever it raises is why
            found.append(f"{where}, a {type(value).__module__}.{type(value).__qualname__} ({error})")
    return found


def _used_values(function: Any) -> Iterator[tuple[str, Any]]:
    function = inspect.unwrap(function)
    if inspect.ismethod(function):
        yield "the object that it is a method of", function.__self__
        function = function.__func__
    if not inspect.isfunction(function):
        return
    captured = inspect.getclosurevars(function)
    for name, value in captured.nonlocals.items():
        yield f"the closure's {name!r}", value
    for name, value in captured.globals.items():
        if not hasattr(builtins, name):
            yield f"the global {name!r}", value
    for default in function.__defaults__ or ():
        yield "the default of an argument", default


def _name(function: Any) -> str:
    return repr(getattr(function, "__qualname__", type(function).__qualname__))

"""Running single tests of a kit on a plugin that is wrong on purpose: who tests the tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from shardfit.testing.kit import Kit

AnyKit = TypeVar("AnyKit", bound=type[Kit])


@dataclass(frozen=True)
class Mistake:
    """A wrong plugin, and how its kit tells.

    Args:
        kit: The kit of the wrong plugin.
        test: Name of the test that must fail.
        saying: What its failure says, a regular expression.
        arguments: Values for the test's parameters beside its fixtures.
    """

    kit: type[Kit]
    test: str
    saying: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.kit.__name__

    def check_caught(self, fixtures: Mapping[str, Any]) -> None:
        """Run the test and check that it fails as it should.

        Args:
            fixtures: Name -> value of the fixtures that the tests of kits ask for.

        Raises:
            AssertionError: The kit has no such test, it passes, or it fails for another reason.
        """
        if self.test not in self.kit.kit_tests:
            raise AssertionError(f"{self.kit.__name__} has no test {self.test!r}; it has {self.kit.kit_tests!r}")
        test = getattr(self.kit(), self.test)
        values = {**fixtures, **self.arguments}
        # A test fails with an error of the plugin's, of its own, or of pytest's, which is no Exception.
        with pytest.raises((Exception, pytest.fail.Exception), match=self.saying):
            test(**{name: values[name] for name in inspect.signature(test).parameters})


def caught_by(mistakes: list[Mistake], test: str, saying: str, **arguments: Any) -> Callable[[AnyKit], AnyKit]:
    """Return a decorator that notes which test must catch the wrong plugin of a kit.

    Args:
        mistakes: Where to note it.
        test: Name of the test that must fail.
        saying: What its failure says, a regular expression.
        **arguments: Values for the test's parameters beside its fixtures.
    """

    def note(kit: AnyKit) -> AnyKit:
        mistakes.append(Mistake(kit, test, saying, arguments))
        return kit

    return note


__all__ = ["Mistake", "caught_by"]

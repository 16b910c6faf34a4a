"""What the conformance kits share: none of their tests can be replaced without a reason that everyone sees."""

from __future__ import annotations

from typing import Any, ClassVar

_MARK = "xfail"


class Kit:
    """Base of the conformance kits. A kit is a pytest class: subclass it, give it the plugin, and run pytest.

    A subclass adds tests as it likes. It replaces a test of the kit only with `@pytest.mark.xfail(reason=...)`, so that
    what a plugin does not do stands in its own test report; anything else is a `TypeError` when the class is made.
    """

    kit_tests: ClassVar[tuple[str, ...]] = ()
    """Names of the tests that the kit brings, sorted."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if _is_kit(cls):
            own = {name for name in vars(cls) if name.startswith("test_")}
            cls.kit_tests = tuple(sorted(own | set(cls.kit_tests)))
            return
        if replaced := [name for name in cls.kit_tests if not _may_stand(cls, name)]:
            raise TypeError(
                f"{cls.__name__} replaces {', '.join(replaced)} of its conformance kit. If the plugin cannot pass a "
                "test, mark the one that replaces it with @pytest.mark.xfail(reason='...')."
            )


def _is_kit(cls: type) -> bool:
    return Kit in cls.__bases__ and cls.__module__.startswith(__package__ or "")


def _may_stand(cls: type, name: str) -> bool:
    owner = next(base for base in cls.__mro__ if name in vars(base))
    if issubclass(owner, Kit) and _is_kit(owner):
        return True
    marks = getattr(vars(owner)[name], "pytestmark", [])
    return any(mark.name == _MARK and mark.kwargs.get("reason") for mark in marks)


def check(holds: object, otherwise: str) -> None:
    """Fail the test that is running unless something holds. Says why also where pytest rewrites no assertion.

    Raises:
        AssertionError: It does not; with the text of `otherwise`.
    """
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(otherwise)


__all__ = ["Kit", "check"]

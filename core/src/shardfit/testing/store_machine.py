"""An artifact store against a dict: whatever is done to it, in whatever order, it answers the same."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shardfit.artifacts import ArtifactStore
from shardfit.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StaleAttemptError
from shardfit.testing.kit import check

_IDENTIFIERS = st.sampled_from(["a", "a/b", "a/b/c", "model/x", "run/x/record", "run/x/checkpoint-1"])
_CONTENTS = st.dictionaries(st.sampled_from(["f", "g", "sub/f", "sub/sub/g"]), st.binary(max_size=20), max_size=4)
_ATTEMPTS = st.integers(1, 3)


class StoreAgainstDict(RuleBasedStateMachine):
    """Puts, deletes, fences and collects in any order; after each step the store holds what a dict holds.

    Args:
        store: A new, empty store.
    """

    def __init__(self, store: ArtifactStore) -> None:
        super().__init__()
        self._store = store
        self._expected: dict[str, dict[str, bytes]] = {}
        self._fenced = 0

    @rule(artifact=_IDENTIFIERS, files=_CONTENTS, attempt=_ATTEMPTS)
    def put(self, artifact: str, files: dict[str, bytes], attempt: int) -> None:
        """Publish, unless an attempt is stale, other files are there, or an artifact would lie in another."""
        expected = self._refusal(artifact, files, attempt)
        try:
            self._store.put(artifact, files, attempt=attempt)
        except ArtifactError as error:
            check(expected is not None, f"put({artifact!r}, attempt={attempt}) raised {error!r}")
            check(isinstance(error, expected or ()), f"put({artifact!r}) raised {error!r} and not {expected!r}")
            return
        check(expected is None, f"put({artifact!r}, attempt={attempt}) did not raise {expected!r}")
        self._expected[artifact] = files

    @rule(artifact=_IDENTIFIERS)
    def delete(self, artifact: str) -> None:
        """Remove what is there, or nothing."""
        self._store.delete(artifact)
        self._expected.pop(artifact, None)

    @precondition(lambda self: bool(self._expected))
    @rule(chosen=st.integers(0, 5))
    def delete_what_is_there(self, chosen: int) -> None:
        """Remove one of the artifacts that are there: by chance alone, few sequences would."""
        self.delete(sorted(self._expected)[chosen % len(self._expected)])

    @rule(attempt=_ATTEMPTS)
    def fence(self, attempt: int) -> None:
        """Fence run `x`; an older fence changes nothing."""
        self._store.fence("x", attempt)
        self._fenced = max(self._fenced, attempt)

    @rule()
    def collect_garbage(self) -> None:
        """Nobody died, so there is nothing to remove."""
        found = self._store.collect_garbage()
        check(found == 0, f"collect_garbage() removed {found} files though no writer died")

    @rule(artifact=_IDENTIFIERS, name=st.sampled_from(["f", "nothing"]))
    def read(self, artifact: str, name: str) -> None:
        """Read a file that may not be there."""
        expected = self._expected.get(artifact, {}).get(name)
        try:
            found = self._store.read(artifact, name)
        except ArtifactNotFoundError:
            check(expected is None, f"read({artifact!r}, {name!r}) found nothing")
            return
        check(found == expected, f"read({artifact!r}, {name!r}) gave {found!r}, expected {expected!r}")

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        """Compare the list of identifiers and the content of every file."""
        listed = list(self._store.list())
        check(listed == sorted(self._expected), f"list() gives {listed!r}, expected {sorted(self._expected)!r}")
        for artifact, files in self._expected.items():
            stored = self._store.manifest(artifact).files
            found = {entry.name: self._store.read(artifact, entry.name) for entry in stored}
            check(found == files, f"{artifact!r} holds {found!r}, expected {files!r}")

    def _refusal(self, artifact: str, files: dict[str, bytes], attempt: int) -> type[ArtifactError] | None:
        if artifact.split("/")[:2] in (["run", "x"], ["model", "x"]) and attempt < self._fenced:
            return StaleAttemptError
        others = self._expected.keys() - {artifact}
        nested = any(f"{a}/".startswith(f"{b}/") for o in others for a, b in ((o, artifact), (artifact, o)))
        return ArtifactExistsError if nested or self._expected.get(artifact, files) != files else None


def compare_with_dict(make_store: Callable[[], ArtifactStore], max_examples: int) -> None:
    """Try a store against a dict.

    Args:
        make_store: Returns a new, empty store each time.
        max_examples: Sequences of steps that are tried.

    Raises:
        AssertionError: It answered otherwise; Hypothesis prints the shortest sequence that it finds.
    """

    class Machine(StoreAgainstDict):
        def __init__(self) -> None:
            super().__init__(make_store())

    run_state_machine_as_test(
        Machine, settings=settings(deadline=None, max_examples=max_examples, stateful_step_count=15)
    )


__all__ = ["StoreAgainstDict", "compare_with_dict"]

"""What every `ArtifactStore` must do: a kit to subclass."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from shardfit.artifacts import MANIFEST_NAME, ArtifactStore
from shardfit.errors import (
    ArtifactCorruptError,
    ArtifactExistsError,
    ArtifactNotFoundError,
    InvalidArgumentError,
    StaleAttemptError,
)
from shardfit.testing.kit import Kit, check
from shardfit.testing.store_machine import compare_with_dict
from shardfit.testing.store_writers import (
    BreakingFiles,
    files_of,
    kill_while_putting,
    put_from_two_processes,
)

FILES: Mapping[str, bytes] = {"model.ubj": b"trees", "deep/er/notes.txt": b"", "big.bin": b"0123456789" * 200_000}

ALTERED: Mapping[str, Callable[[Any], Any]] = {
    "a name that climbs out": lambda m: m["files"][0].update(name="../../escaped"),
    "an absolute name": lambda m: m["files"][0].update(name="/escaped"),
    "a name twice but for case": lambda m: m["files"].append({**m["files"][0], "name": m["files"][0]["name"].upper()}),
    "another size": lambda m: m["files"][0].update(size=10**15),
    "a negative size": lambda m: m["files"][0].update(size=-1),
    "a size that is no number": lambda m: m["files"][0].update(size=True),
    "another digest": lambda m: m["files"][0].update(sha256="0" * 64),
    "a digest that is no text": lambda m: m["files"][0].update(sha256=["x"]),
    "a name that is no text": lambda m: m["files"][0].update(name=["x"]),
    "files that are no list": lambda m: m.update(files={"x": 1}),
    "another artifact": lambda m: m.update(artifact="other"),
    "another format": lambda m: m.update(format=2),
    "metadata that are no table": lambda m: m.update(metadata=[1]),
    "no attempt": lambda m: m.pop("attempt"),
}

UNSAFE_NAMES = (
    ["/etc/passwd"], ["../f"], ["a/../../f"], ["."], [""], ["a//b"], ["C:\\f"], ["manifest.json"], ["Manifest.JSON/x"],
    ["A", "a"], ["a", "a/b"], ["a/b", "A"], ["nul\0"],
)  # fmt: skip


class StoreKit(Kit, ABC):
    """What every artifact store must do. Subclass it, make a store, and reach what it stores behind its back.

    Example:
        ```python
        class TestLocalStore(StoreKit):
            def make_store(self, folder):
                return LocalStore(folder)

            def read_raw(self, store, artifact, name):
                return Path(store.address(artifact), name).read_bytes()

            def write_raw(self, store, artifact, name, content):
                path = Path(store.address(artifact), name)
                path.unlink() if content is None else path.write_bytes(content)
        ```
    """

    max_examples: ClassVar[int] = 25
    """Sequences of steps that the store is compared with a dict on."""

    artifacts_at_once: ClassVar[int] = 12
    """Artifacts that several writers fight for."""

    @abstractmethod
    def make_store(self, folder: Path) -> ArtifactStore:
        """Return a new store that holds nothing.

        Args:
            folder: The test's own; need not be used.
        """

    @abstractmethod
    def read_raw(self, store: ArtifactStore, artifact: str, name: str) -> bytes:
        """Return what is stored under a name, by other means than the store. `manifest.json` is the manifest."""

    @abstractmethod
    def write_raw(self, store: ArtifactStore, artifact: str, name: str, content: bytes | None) -> None:
        """Replace what is stored under a name, or remove it where `content` is None, by other means than the store."""

    def test_what_is_put_is_stored_as_it_is_and_read_back(self, tmp_path: Path) -> None:
        """Files from memory and from disk, the metadata, the attempt; compared by a second route."""
        store = self.make_store(tmp_path / "stage")
        (tmp_path / "on disk").write_bytes(b"from a file")
        expected = {**FILES, "local": b"from a file"}
        manifest = store.put("model/a", {**FILES, "local": tmp_path / "on disk"}, {"auc": 0.9}, attempt=2)
        check(store.manifest("model/a") == manifest, "manifest() differs from what put() returned")
        check((dict(manifest.metadata), manifest.attempt) == ({"auc": 0.9}, 2), f"the manifest is {manifest!r}")
        described = {f.name: (f.size, f.sha256) for f in manifest.files}
        digests = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in expected.items()}
        check(described == digests, f"the manifest describes {described!r}, expected {digests!r}")
        check([f.name for f in manifest.files] == sorted(expected), "the files of a manifest are sorted by name")
        for name, content in expected.items():
            check(self.read_raw(store, "model/a", name) == content, f"{name!r} is stored with other content")
            check(store.read("model/a", name) == content, f"read({name!r}) gives other content")

    def test_get_writes_every_file_and_nothing_else(self, tmp_path: Path) -> None:
        """Into a folder that is made for it."""
        store = self._filled(tmp_path)
        target = tmp_path / "out" / "put"
        store.get("a", target)
        found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
        check(found == FILES, f"get() wrote {sorted(found)!r}, expected {sorted(FILES)!r}")

    def test_an_artifact_does_not_change(self, tmp_path: Path) -> None:
        """The same files again are the same artifact; other files under the identifier are refused."""
        store = self.make_store(tmp_path)
        first = store.put("a", FILES, {"when": 1})
        check(store.put("a", FILES, {"when": 2}) == first, "the same files again gave another manifest")
        for other in ({"model.ubj": b"other"}, {**FILES, "more": b""}, {}):
            with pytest.raises(ArtifactExistsError):
                store.put("a", other)
        check(store.read("a", "model.ubj") == FILES["model.ubj"], "a refused put changed a file")
        check(store.manifest("a") == first, "a refused put changed the manifest")

    @pytest.mark.parametrize(("first", "second"), [("run/x", "run/x/record"), ("run/x/record", "run/x")])
    def test_no_artifact_lies_inside_another(self, tmp_path: Path, first: str, second: str) -> None:
        """`a/b` is refused where `a` is one, and the other way round."""
        store = self.make_store(tmp_path)
        store.put(first, {"f": b"1"})
        with pytest.raises(ArtifactExistsError):
            store.put(second, {"f": b"2"})
        store.delete(second)
        check(list(store.list()) == [first], f"list() gives {list(store.list())!r}")

    @pytest.mark.parametrize("artifact", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a b", "a+b", "ü"])
    def test_identifiers_that_some_store_can_not_hold_are_refused(self, tmp_path: Path, artifact: str) -> None:
        """A job that runs on one store runs on all."""
        with pytest.raises(InvalidArgumentError):
            self.make_store(tmp_path).put(artifact, {"f": b""})

    @pytest.mark.parametrize("names", UNSAFE_NAMES, ids=repr)
    def test_names_that_would_not_stay_apart_and_inside_are_refused(self, tmp_path: Path, names: list[str]) -> None:
        """On every file system, whatever its case."""
        store = self.make_store(tmp_path)
        with pytest.raises(InvalidArgumentError):
            store.put("a", dict.fromkeys(names, b""))
        check(list(store.list()) == [], "something is listed after a refused put")

    def test_metadata_that_json_can_not_hold_are_refused(self, tmp_path: Path) -> None:
        """Nothing is visible then."""
        store = self.make_store(tmp_path)
        for value in (object(), float("nan")):
            with pytest.raises(InvalidArgumentError):
                store.put("a", {"f": b""}, {"value": value})
        check(list(store.list()) == [], "something is listed after a refused put")

    def test_what_is_not_there_is_said(self, tmp_path: Path) -> None:
        """No artifact, no such file in one; deleting nothing is no error."""
        store = self._filled(tmp_path)
        with pytest.raises(ArtifactNotFoundError):
            store.manifest("b")
        with pytest.raises(ArtifactNotFoundError):
            store.read("a", "nothing")
        with pytest.raises(ArtifactNotFoundError):
            store.get("b", tmp_path / "out")
        check(not (tmp_path / "out").exists(), "a failed get() left a folder")
        store.delete("b")

    def test_identifiers_are_listed_by_prefix_and_sorted(self, tmp_path: Path) -> None:
        """And only those of whole artifacts."""
        store = self.make_store(tmp_path)
        for artifact in ("run/b/record", "model/b", "run/a/checkpoint-2", "run/a/checkpoint-10"):
            store.put(artifact, {"f": b""})
        for prefix in ("", "run/", "run/a", "model/b", "x"):
            expected = sorted(
                artifact
                for artifact in ("model/b", "run/a/checkpoint-10", "run/a/checkpoint-2", "run/b/record")
                if artifact.startswith(prefix)
            )
            check(list(store.list(prefix)) == expected, f"list({prefix!r}) gives {list(store.list(prefix))!r}")

    @pytest.mark.parametrize("damage", [b"treez", b"tree", b"trees and more", None], ids=repr)
    def test_a_torn_or_altered_file_is_found_when_it_is_read(self, tmp_path: Path, damage: bytes | None) -> None:
        """By its size or its digest; a failed `get` leaves the folder as it was."""
        store = self._filled(tmp_path)
        self.write_raw(store, "a", "model.ubj", damage)
        with pytest.raises(ArtifactCorruptError):
            store.read("a", "model.ubj")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model.ubj").write_bytes(b"mine")
        with pytest.raises(ArtifactCorruptError):
            store.get("a", tmp_path / "out")
        left = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        check(left == {"model.ubj": b"mine"}, f"a failed get() left {sorted(left)!r}")

    @pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
    def test_an_altered_manifest_is_not_trusted(self, tmp_path: Path, alter: Callable[[Any], Any]) -> None:
        """Names that climb out of the folder, sizes and digests that lie, and nonsense."""
        store = self.make_store(tmp_path / "stage")
        store.put("a", {"f": b"12345"})
        content = json.loads(self.read_raw(store, "a", MANIFEST_NAME))
        alter(content)
        self.write_raw(store, "a", MANIFEST_NAME, json.dumps(content).encode())
        with pytest.raises(ArtifactCorruptError):
            store.get("a", tmp_path / "deep" / "er" / "out")
        check(not list(tmp_path.rglob("*escaped*")), "a file was written outside the folder")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000], ids=lambda c: repr(c[:5]))
    def test_a_torn_manifest_is_corrupt(self, tmp_path: Path, content: bytes) -> None:
        """Whatever it holds."""
        store = self._filled(tmp_path)
        self.write_raw(store, "a", MANIFEST_NAME, content)
        with pytest.raises(ArtifactCorruptError):
            store.manifest("a")

    def test_a_writer_that_fails_half_way_leaves_nothing_visible(self, tmp_path: Path) -> None:
        """Neither listed nor readable, and the identifier is free."""
        store = self.make_store(tmp_path / "stage")
        failing: list[Mapping[str, bytes | Path]] = [BreakingFiles({"a": b"half"}), {"a": b"1", "b": tmp_path / "gone"}]
        for broken in failing:
            with pytest.raises(OSError, match=r"."):
                store.put("model/a", broken)
            self._check_nothing(store, "model/a")
        store.put("model/a", {"a": b"other"})
        check(store.read("model/a", "a") == b"other", "what the failed writer left is read")

    def test_a_writer_that_is_killed_half_way_leaves_nothing_visible(self, tmp_path: Path) -> None:
        """What it leaves is garbage, which is collected once; whoever comes next may publish."""
        store = self.make_store(tmp_path)
        kill_while_putting(store, "model/a", {"a": b"half"})
        self._check_nothing(store, "model/a")
        store.collect_garbage()
        check(store.collect_garbage() == 0, "collect_garbage() finds the same garbage twice")
        store.put("model/a", {"a": b"other"})
        check(store.read("model/a", "a") == b"other", "what the killed writer left is read")

    def test_of_two_processes_one_wins_each_artifact_and_files_never_mix(self, tmp_path: Path) -> None:
        """The other one is told. The store is pickled to both."""
        store = self.make_store(tmp_path)
        won = put_from_two_processes(store, self.artifacts_at_once)
        artifacts = sorted(f"model/{i}" for i in range(self.artifacts_at_once))
        check(sorted(itertools.chain(*won.values())) == artifacts, f"each artifact has one winner: {won!r}")
        for writer, theirs in won.items():
            for artifact in theirs:
                self._check_content(store, artifact, files_of(writer))

    def test_of_several_threads_one_wins_and_files_never_mix(self, tmp_path: Path) -> None:
        """On one store object, which threads may share."""
        store = self.make_store(tmp_path)

        def put(writer: int) -> bool:
            with suppress(ArtifactExistsError):
                store.put("a", files_of(writer))
                return True
            return False

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(put, range(8)))
        check(sum(won) == 1, f"{sum(won)} of 8 threads were told that they published")
        self._check_content(store, "a", files_of(won.index(True)))

    def test_readers_see_an_artifact_whole_or_not_at_all(self, tmp_path: Path) -> None:
        """While it comes and goes, in another version each time."""
        store = self.make_store(tmp_path / "stage")
        versions = [{"a": bytes([i]) * 5000, "b": bytes([i]) * 5000} for i in range(16)]

        def write() -> None:
            for files in versions:
                store.put("a", files)
                store.delete("a")

        with ThreadPoolExecutor(1) as pool:
            writing, turn = pool.submit(write), 0
            while not writing.done():
                turn += 1
                with suppress(ArtifactNotFoundError):
                    store.get("a", tmp_path / f"out-{turn}")
                    found = [(tmp_path / f"out-{turn}" / name).read_bytes() for name in "ab"]
                    check(found[0] == found[1], "get() mixed two versions of an artifact")
            writing.result()
        check(list(store.list()) == [], f"list() gives {list(store.list())!r}")

    def test_an_older_attempt_can_not_publish_once_a_newer_one_is_fenced(self, tmp_path: Path) -> None:
        """Nothing of that run: its checkpoints, its model. Other runs are not concerned."""
        store = self.make_store(tmp_path)
        store.put("run/r1/checkpoint-1", {"f": b"1"}, attempt=1)
        store.fence("r1", 3)
        store.fence("r1", 2)
        there: ArtifactStore = pickle.loads(pickle.dumps(store))  # noqa: S301 - made here
        for artifact in ("run/r1/checkpoint-2", "model/r1"):
            with pytest.raises(StaleAttemptError):
                there.put(artifact, {"f": b"1"}, attempt=2)
            there.put(artifact, {"f": b"1"}, attempt=3)
        for artifact in ("run/r2/checkpoint-1", "other/r1", "model/r11"):
            there.put(artifact, {"f": b"1"}, attempt=1)

    def test_a_pickled_store_is_the_same_store(self, tmp_path: Path) -> None:
        """And tells where an artifact is."""
        store = self._filled(tmp_path)
        there: ArtifactStore = pickle.loads(pickle.dumps(store))  # noqa: S301 - made here
        self._check_content(there, "a", FILES)
        check(there.address("a") == store.address("a"), "a pickled store has another address")
        check("a" in store.address("a"), f"address('a') is {store.address('a')!r}")

    def test_whatever_is_done_to_it_it_answers_like_a_dict(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Puts, deletes, fences, reads and collections in any order; see `store_machine`."""
        compare_with_dict(lambda: self.make_store(tmp_path_factory.mktemp("stage")), self.max_examples)

    def _filled(self, folder: Path) -> ArtifactStore:
        store = self.make_store(folder / "stage")
        store.put("a", FILES)
        return store

    def _check_nothing(self, store: ArtifactStore, artifact: str) -> None:
        check(list(store.list()) == [], f"list() gives {list(store.list())!r} after a writer failed")
        with pytest.raises(ArtifactNotFoundError):
            store.manifest(artifact)

    def _check_content(self, store: ArtifactStore, artifact: str, files: Mapping[str, bytes]) -> None:
        found = {entry.name: store.read(artifact, entry.name) for entry in store.manifest(artifact).files}
        check(found == files, f"{artifact!r} holds other files than those that were put together")


__all__ = ["FILES", "StoreKit"]

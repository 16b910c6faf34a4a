"""What the local store promises, shown on a real folder: whole or not at all, checked, fenced."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shardfit.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    InvalidArgumentError,
    StaleAttemptError,
)
from shardfit.stores.files import staging_folder
from shardfit.stores.local import LocalStore, LocalStoreOpener, user_stage_root

FILES = {"model.ubj": b"trees", "deep/er/notes.txt": b"", "big.bin": b"x" * 3_000_000}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "stage")


def folder_of(store: LocalStore, artifact: str) -> Path:
    return Path(store.address(artifact))


def test_an_artifact_is_found_where_its_identifier_says(store: LocalStore) -> None:
    store.put("model/x", {"f": b"1"})
    assert (Path(store.address("model/x")), store.root / "model" / "x" / "f") == (
        store.root / "model" / "x",
        Path(store.address("model/x")) / "f",
    )
    store.delete("model/x")
    assert not (store.root / "model").exists()


def test_a_name_too_long_for_the_file_system_is_an_argument_error(store: LocalStore) -> None:
    with pytest.raises(InvalidArgumentError, match="too long"):
        store.put("a", {"x" * 300: b""})
    assert store.collect_garbage() == 0


def test_nothing_there_is_said_with_the_identifier(store: LocalStore) -> None:
    with pytest.raises(ArtifactNotFoundError, match="'a/b'"):
        store.manifest("a/b")
    store.put("a", FILES)
    with pytest.raises(ArtifactNotFoundError, match=r"It has 'big.bin', 'deep/er/notes.txt', 'model.ubj'"):
        store.read("a", "nothing")
    store.delete("never")


def test_get_does_not_write_through_a_link_in_the_target(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", {"sub/f": b"1"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="in the way"):
        store.get("a", tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["sub"]


def test_a_link_or_pipe_in_an_artifact_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", {"f": b"12345", "sub/g": b"12345"})
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    folder = folder_of(store, "a")
    (folder / "f").unlink()
    (folder / "f").symlink_to(secret)
    with pytest.raises(ArtifactCorruptError, match="link"):
        store.read("a", "f")
    (folder / "f").unlink()
    os.mkfifo(folder / "f")
    with pytest.raises(ArtifactCorruptError, match="no plain file"):
        store.read("a", "f")
    (folder / "sub").rename(tmp_path / "moved")
    (folder / "sub").symlink_to(tmp_path / "moved")
    with pytest.raises(ArtifactCorruptError, match="link"):
        store.read("a", "sub/g")


def test_an_older_attempt_can_not_publish_once_a_newer_one_is_fenced(store: LocalStore) -> None:
    store.put("run/r1/checkpoint-1", {"f": b"1"}, attempt=1)
    store.fence("r1", 3)
    store.fence("r1", 2)
    for artifact in ("run/r1/checkpoint-2", "model/r1"):
        with pytest.raises(StaleAttemptError, match="attempt 3 has taken over"):
            store.put(artifact, {"f": b"1"}, attempt=2)
        store.put(artifact, {"f": b"1"}, attempt=3)
    store.put("run/r2/checkpoint-1", {"f": b"1"}, attempt=1)
    store.put("other/r1", {"f": b"1"}, attempt=1)


def test_a_store_can_be_pickled_and_keeps_its_folder_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("stage"))
    monkeypatch.chdir("/")
    store.put("a", {"f": b"1"})
    assert pickle.loads(pickle.dumps(store)).read("a", "f") == b"1"
    assert (tmp_path / "stage").is_dir()


def test_a_full_disk_is_an_artifact_error_and_nothing_is_visible(store: LocalStore) -> None:
    # A limit on the size of files is a full disk to whoever writes, without one being filled.
    script = textwrap.dedent(f"""
        import resource, sys
        from pathlib import Path
        from shardfit.errors import ArtifactError
        from shardfit.stores.local import LocalStore
        store = LocalStore(Path({os.fspath(store.root)!r}))
        store.put("before", {{"f": b"1"}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            store.put("model/a", {{"a": b"1", "b": b"x" * 1_000_000}})
        except ArtifactError as error:
            print(type(error).__name__, error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ArtifactError putting 'model/a'")
    assert list(store.list()) == ["before"]
    assert list((store.root / ".staging").iterdir()) == []


def test_a_killed_writer_leaves_nothing_visible_and_its_files_are_collected(store: LocalStore) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from shardfit.stores import local
        local.sync_folders = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        local.LocalStore(Path({os.fspath(store.root)!r})).put("model/a", {{"a": b"1", "sub/b": b"2"}})
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert list(store.list()) == []
    assert store.collect_garbage() == 3
    assert store.collect_garbage() == 0
    store.put("model/a", {"a": b"other"})


def test_collecting_garbage_leaves_alone_what_is_being_written(store: LocalStore) -> None:
    with staging_folder(store.root / ".staging") as staging:
        (staging / "f").write_bytes(b"half")
        assert store.collect_garbage() == 0
        assert (staging / "f").exists()
    assert not staging.exists()


def test_a_strangers_folder_in_the_stage_is_not_listed(store: LocalStore) -> None:
    store.put("a", {"f": b""})
    (store.root / "a stranger's").mkdir()
    (store.root / "a stranger's" / "manifest.json").write_text("{}")
    assert list(store.list()) == ["a"]


def test_the_opener_claims_paths_and_file_urls_only(tmp_path: Path) -> None:
    opener = LocalStoreOpener()
    assert opener.claims("s3://bucket/x") is None
    assert opener.claims("@DB.SCHEMA.STAGE") is None
    assert opener.claims("") is None
    for location in (os.fspath(tmp_path), tmp_path.as_uri(), f"file://localhost{tmp_path}"):
        assert opener.claims(location) is not None
        assert opener.open(location, {}) == LocalStore(tmp_path)
    assert opener.open("file:///a%20b", {}) == LocalStore(Path("/a b"))
    with pytest.raises(InvalidArgumentError, match="otherhost"):
        opener.open("file://otherhost/x", {})
    with pytest.raises(InvalidArgumentError, match="region"):
        opener.open("/x", {"region": "eu"})


def test_the_user_stage_can_be_moved_by_the_environment(tmp_path: Path) -> None:
    assert user_stage_root({"SHARDFIT_STAGE_ROOT": os.fspath(tmp_path)}) == tmp_path
    assert user_stage_root({}).parts[-2:] == ("stages", "user")

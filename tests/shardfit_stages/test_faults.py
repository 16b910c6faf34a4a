"""A put that fails or dies at any call of the service: a reader sees all or nothing, and the next put completes."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

import shardfit_stages.identity
from shardfit.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StaleAttemptError
from shardfit.process_identity import started_at
from shardfit_stages.layout import PUBLISHING, WRITING, manifest_key
from shardfit_stages.service import BLOCK
from shardfit_stages.service_errors import ServiceError
from tests.shardfit_stages.service_doubles import FailingAt, MemoryService, WriterDiedError, store_on

FILES = {"a": b"first", "deep/b": b"second" * 50, "c": b""}
OTHER = {"a": b"other"}
WAYS = [(died, arrives) for died in (False, True) for arrives in (False, True)]


@pytest.fixture(autouse=True)
def this_process_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever left a mark is dead as soon as somebody else asks: writers here die without a process of their own."""
    numbers = itertools.count()
    monkeypatch.setattr("shardfit_stages.marks._LAST_REQUEST_S", 0.0)
    monkeypatch.setattr(shardfit_stages.identity, "started_at", lambda pid: next(numbers))


def calls_of_a_put(conditional: bool) -> int:
    service = MemoryService({}, conditional)
    store_on(service).put("model/a", FILES)
    return len(service.calls)


@pytest.mark.parametrize("conditional", [True, False], ids=["conditional", "unconditional"])
@pytest.mark.parametrize(("died", "arrives"), WAYS, ids=lambda value: str(value))
def test_a_put_that_fails_or_dies_at_any_call_is_seen_whole_or_not_at_all(
    conditional: bool, died: bool, arrives: bool
) -> None:
    for number in range(calls_of_a_put(conditional)):
        objects = {}
        broken = MemoryService(objects, conditional)
        failing = FailingAt(broken, number, died, arrives)
        store, told = store_on(MemoryService(objects, conditional)), False
        try:
            store_on(broken).put("model/a", FILES)
        except (ServiceError, WriterDiedError):
            told = True
        assert failing.reached
        seen = list(store.list())
        assert seen == ["model/a"] or told
        for artifact in seen:
            assert {one.name: store.read(artifact, one.name) for one in store.manifest(artifact).files} == FILES
        if number % 3 == 0:
            store.collect_garbage()
            assert list(store.list()) == seen
        assert store.put("model/a", FILES).files == store.manifest("model/a").files
        store.collect_garbage()
        folder = [key for key in objects if not key.startswith(f"{WRITING}/") and key != "model/a/manifest.json"]
        assert len(folder) == len(FILES), f"call {number} left {sorted(objects)}"
        assert {name: store.read("model/a", name) for name in FILES} == FILES


@pytest.mark.parametrize(("died", "arrives"), WAYS, ids=lambda value: str(value))
def test_a_delete_that_fails_or_dies_at_any_call_leaves_it_whole_or_gone(died: bool, arrives: bool) -> None:
    for number in itertools.count():
        objects = {}
        store = store_on(MemoryService(objects))
        store.put("model/a", FILES)
        broken = MemoryService(objects)
        failing = FailingAt(broken, number, died, arrives)
        try:
            store_on(broken).delete("model/a")
        except (ServiceError, WriterDiedError):
            assert failing.reached
        for artifact in store.list():
            assert {one.name: store.read(artifact, one.name) for one in store.manifest(artifact).files} == FILES
        store.delete("model/a")
        store.collect_garbage()
        assert objects == {}
        if not failing.reached:
            assert number > len(FILES)
            return


def test_what_an_interrupted_put_has_sent_is_not_sent_again() -> None:
    objects = {}
    broken = MemoryService(objects)
    files = {f"part-{i}": bytes([i]) * (BLOCK + 1) for i in range(4)}
    FailingAt(broken, 9, died=False, arrives=False)
    with pytest.raises(ServiceError):
        store_on(broken).put("model/a", files)
    there = {key.rpartition("/")[2] for key in objects if "/put=" in key and key.startswith("model/")}
    assert there
    service = MemoryService(objects)
    store_on(service).put("model/a", files)
    sent = {call.rpartition("/")[2] for call in service.calls if call.startswith("upload ")}
    assert sent == files.keys() - there
    assert store_on(service).collect_garbage() == len(there)


def test_a_file_left_by_another_content_is_sent() -> None:
    objects = {}
    broken = MemoryService(objects)

    def refuse_z(call: str) -> None:
        if call.startswith("put model/a/put=") and call.endswith("/z"):
            raise ServiceError(call, "full")

    broken.before = refuse_z
    with pytest.raises(ServiceError):
        store_on(broken).put("model/a", {"f": b"one", "z": b""})
    store = store_on(MemoryService(objects))
    store.put("model/a", {"f": b"two"})
    assert store.read("model/a", "f") == b"two"


@pytest.mark.parametrize("conditional", [True, False], ids=["conditional", "unconditional"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_put_that_is_refused_at_any_call_is_seen_whole_or_not_at_all(conditional: bool, arrives: bool) -> None:
    # As when credentials run out: a request that is sent again, or the next one, is refused, and the first has arrived.
    for number in range(calls_of_a_put(conditional)):
        objects = {}
        broken = MemoryService(objects, conditional)
        FailingAt(broken, number, died=False, arrives=arrives, error=ArtifactError("putting", "refused"))
        with suppress(ArtifactError):
            store_on(broken).put("model/a", FILES)
        store = store_on(MemoryService(objects, conditional))
        for artifact in list(store.list()):
            assert {one.name: store.read(artifact, one.name) for one in store.manifest(artifact).files} == FILES
        assert store.put("model/a", FILES).files == store.manifest("model/a").files


def test_the_clocks_of_machines_and_of_the_service_may_differ_by_days() -> None:
    objects = {}
    writer = MemoryService(objects, skew=timedelta(days=3))
    seen = []

    def collect_meanwhile(call: str) -> None:
        if call.startswith("create"):
            writer.before = lambda call: None
            seen.append(store_on(MemoryService(objects, skew=timedelta(days=3))).collect_garbage())

    writer.before = collect_meanwhile
    alive = pytest.MonkeyPatch()
    with alive.context() as patch:
        patch.setattr(shardfit_stages.identity, "started_at", started_at)
        store_on(writer, life_s=60, lease_s=60).put("model/a", FILES)
    assert seen == [0]
    assert store_on(writer).read("model/a", "a") == b"first"


def test_a_writer_that_was_taken_for_dead_does_not_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, late = {}, [0.0]
    monkeypatch.setattr("shardfit_stages.marks.now_s", lambda: late[0])
    service = MemoryService(objects)

    def sleep_long(call: str) -> None:
        if call.startswith(f"list {PUBLISHING}"):
            late[0] += 500.0

    service.after = sleep_long
    with pytest.raises(ArtifactError, match=r"sign of life|answer|all the time"):
        store_on(service).put("model/a", FILES)
    assert list(store_on(MemoryService(objects)).list()) == []


@pytest.mark.parametrize("conditional", [True, False])
def test_another_that_publishes_first_wins_and_the_slower_one_is_told(conditional: bool) -> None:
    objects = {}
    slow = MemoryService(objects, conditional)

    def overtake(call: str) -> None:
        if call.startswith("put model/a/put="):
            slow.before = lambda call: None
            store_on(MemoryService(objects, conditional)).put("model/a", OTHER)

    slow.before = overtake
    with pytest.raises(ArtifactExistsError):
        store_on(slow).put("model/a", FILES)
    store = store_on(MemoryService(objects, conditional))
    assert store.read("model/a", "a") == b"other"
    assert len(objects) == 2, sorted(objects)


def test_a_fence_that_comes_while_an_older_attempt_uploads_stops_it() -> None:
    objects = {}
    slow = MemoryService(objects)

    def fence(call: str) -> None:
        if call.startswith("put model/r/put="):
            slow.before = lambda call: None
            store_on(MemoryService(objects)).fence("r", 2)

    slow.before = fence
    with pytest.raises(StaleAttemptError):
        store_on(slow).put("model/r", FILES, attempt=1)
    assert [key for key in objects if not key.startswith(".fences")] == []


def test_a_reader_finds_what_was_put_anew_meanwhile_and_never_a_mixture(tmp_path: Path) -> None:
    objects = {}
    store = store_on(MemoryService(objects))
    store.put("model/a", FILES)
    reading = MemoryService(objects)

    def replace(call: str) -> None:
        if call.startswith("size model/a/put="):
            reading.before = lambda call: None
            store.delete("model/a")
            store.put("model/a", OTHER)

    reading.before = replace
    store_on(reading).get("model/a", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == OTHER
    store.delete("model/a")
    with pytest.raises(ArtifactNotFoundError):
        store_on(reading).get("model/a", tmp_path)


def test_no_older_attempt_publishes_after_a_fence_that_the_service_was_slow_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shardfit_stages.identity, "started_at", started_at)
    objects = {}
    old, new = MemoryService(objects), MemoryService(objects)
    entered, go_on = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if call.startswith("create model/a"):
            entered.set()
            go_on.wait(10)

    def take_long(call: str) -> None:
        if call.startswith("put .fences"):
            # For so long that others have taken the locks of whoever fences for those of the dead.
            for key in [key for key in objects if key.startswith(PUBLISHING)]:
                del objects[key]
            publishing.start()
            assert entered.wait(10)
            threading.Timer(0.3, go_on.set).start()

    old.before, new.before = hold, take_long
    publishing = threading.Thread(target=lambda: store_on(old).put("model/a", FILES, attempt=1))
    store_on(new).fence("a", 2)
    assert manifest_key("model/a") in objects
    publishing.join()
    with pytest.raises(StaleAttemptError):
        store_on(old).put("model/a", OTHER, attempt=1)

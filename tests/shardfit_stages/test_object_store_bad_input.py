"""Whatever is wrong with a service, its answer is clear, and nothing that is published is lost or torn."""

from __future__ import annotations

import subprocess
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from scripts.object_servers import BUCKET, KEY, Server, ServerMissingError, rclone, s3_options
from shardfit.errors import ArtifactError, ArtifactNotFoundError, InvalidArgumentError
from shardfit_stages.check import check_store
from shardfit_stages.service import BLOCK
from shardfit_stages.service_errors import ServiceError
from shardfit_stages.store import ObjectArtifactStore, open_object_store
from tests.shardfit_stages.faulty_proxy import faulty_proxy

FILES = {"model.ubj": b"trees", "big.bin": b"0123456789" * (BLOCK // 5)}


def store_on(server: Server, **options: object) -> ObjectArtifactStore:
    return ObjectArtifactStore(f"{server.url}/{uuid.uuid4().hex}", {**server.options, "patience_s": 20, **options})


def check_holds(store: ObjectArtifactStore, artifact: str = "model/a") -> None:
    assert {name: store.read(artifact, name) for name in FILES} == FILES


@pytest.mark.parametrize(
    "url", ["s3://bucket", "gs://bucket/x", "az://c/x", "abfss://c@account.dfs.core.windows.net/x"]
)
def test_a_url_of_each_service_makes_a_store(url: str) -> None:
    store = open_object_store(url, {"account_name": "a"} if url.startswith("a") else {})
    assert store.address("model/a") == f"{url}/model/a"


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ftp://x/y", "scheme 'ftp'"),
        ("s3:///x", "names no bucket"),
        (f"s3://id:{KEY}@bucket/x", "more than a bucket"),
        (f"s3://bucket/x?token={KEY}", "more than a bucket"),
        ("s3://bucket/a/../b", r"found '\.\.'"),
        ("s3://bucket/a/%2e%2E/b", r"found '\.\.'"),
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_a_secret(url: str, match: str) -> None:
    with pytest.raises(InvalidArgumentError, match=match) as raised:
        open_object_store(url)
    assert KEY not in str(raised.value)


def test_an_option_that_is_none_is_refused(rclone_server: Server) -> None:
    with pytest.raises(InvalidArgumentError, match="patience_s=-1"):
        store_on(rclone_server, patience_s=-1)
    with pytest.raises(InvalidArgumentError, match="no_such_option"):
        list(store_on(rclone_server, no_such_option="1").list())


@pytest.mark.parametrize("served", ["rclone_server", "azurite_server"])
def test_wrong_credentials_are_said_and_appear_nowhere(served: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(served)
    secret = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5"
    wrong = "account_key" if server.url.startswith("az") else "secret_access_key"
    store = store_on(server, **{wrong: secret})
    for call in (lambda: store.put("model/a", FILES), lambda: list(store.list()), lambda: store.read("model/a", "f")):
        with pytest.raises(ArtifactError, match="credentials") as raised:
            call()
        told = "".join(traceback.format_exception(raised.value)) + repr(store) + store.address("a") + repr(vars(store))
        assert secret not in told
        assert server.options[wrong] not in told
    rights = check_store(store)
    assert not any(one.granted for one in rights)
    assert secret not in repr(rights)


def test_a_token_that_the_client_puts_into_urls_is_in_no_error_nor_in_what_caused_it(azurite_server: Server) -> None:
    secret = "Y2FuYXJ5/c2lnbmF0dXJl"
    options = {name: value for name, value in azurite_server.options.items() if name != "account_key"}
    token = f"sv=2023-01-03&ss=b&srt=sco&sp=rwdl&se=2099-01-01T00:00:00Z&sig={secret}"
    store = ObjectArtifactStore(f"{azurite_server.url}/x", {**options, "sas_token": token, "patience_s": 1})
    for call in (lambda: store.put("model/a", FILES), lambda: list(store.list()), lambda: store.read("model/a", "f")):
        with pytest.raises(ArtifactError) as raised:
            call()
        chain: list[BaseException | None] = [raised.value]
        while (error := chain[-1]) is not None:
            told = "".join(traceback.format_exception(error))
            assert secret not in told
            assert quote(secret, safe="") not in told
            chain.append(error.__context__)


@pytest.mark.parametrize("served", ["rclone_server", "moto_server", "azurite_server"])
def test_a_bucket_that_is_missing_is_said(served: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(served)
    url = server.url.replace(BUCKET, "nowhere")
    store = ObjectArtifactStore(f"{url}/x", {**server.options, "patience_s": 2})
    for call in (lambda: store.put("a", FILES), lambda: list(store.list()), lambda: store.collect_garbage()):
        with pytest.raises(ArtifactError, match="bucket or container does not exist"):
            call()
    with pytest.raises(ArtifactError, match=r"none|does not exist"):
        store.manifest("a")


@pytest.mark.parametrize(
    ("served", "conditional"), [("rclone_server", False), ("moto_server", True), ("azurite_server", True)]
)
def test_check_tells_which_rights_there_are(served: str, conditional: bool, request: pytest.FixtureRequest) -> None:
    store = store_on(request.getfixturevalue(served))
    rights = {one.right: one for one in check_store(store)}
    assert {name: one.granted for name, one in rights.items()} == {
        "write": True, "read": True, "list": True, "create if absent": conditional, "delete": True
    }  # fmt: skip
    assert conditional or "lock alone" in rights["create if absent"].advice
    assert store.service.list() == []


@pytest.fixture
def own_rclone(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be stopped and started."""
    try:
        server = rclone(tmp_path / "served")
        server.start()
    except ServerMissingError as error:
        pytest.skip(str(error))
    with server:
        yield server


def test_a_stage_that_is_read_only_is_read_and_not_written(own_rclone: Server) -> None:
    writable = store_on(own_rclone)
    writable.put("model/a", FILES)
    own_rclone.stop()
    own_rclone.command = [*own_rclone.command[:-1], "--read-only", own_rclone.command[-1]]
    own_rclone.start()
    store = ObjectArtifactStore(writable.url, {**own_rclone.options, "patience_s": 1})
    with pytest.raises(ArtifactError):
        store.put("model/b", FILES)
    check_holds(store)
    assert list(store.list()) == ["model/a"]
    assert not {one.right: one for one in check_store(store)}["write"].granted


def test_a_storm_of_busy_answers_is_outlasted(rclone_server: Server) -> None:
    with faulty_proxy(rclone_server.port, lambda number: "busy" if number < 6 or number % 3 == 0 else None) as proxy:
        store = store_on(rclone_server, endpoint=s3_options(proxy.port)["endpoint"])
        store.put("model/a", FILES)
        check_holds(store)
        assert proxy.connections > 6


def test_connections_that_break_in_the_middle_are_made_anew(rclone_server: Server, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(FILES["big.bin"])
    with faulty_proxy(rclone_server.port, lambda number: 200_000 if number % 2 == 0 and number < 8 else None) as proxy:
        store = store_on(rclone_server, endpoint=s3_options(proxy.port)["endpoint"])
        store.put("model/a", {**FILES, "big.bin": tmp_path / "big"})
        check_holds(store)


def test_a_server_that_stops_in_the_middle_of_an_upload_and_comes_back(own_rclone: Server) -> None:
    published, began = store_on(own_rclone), threading.Event()
    published.put("model/a", FILES)

    def restart() -> None:
        began.wait(30)
        own_rclone.stop()
        time.sleep(0.3)
        own_rclone.start()

    with_progress = ObjectArtifactStore(published.url, {**own_rclone.options, "patience_s": 60})
    thread = threading.Thread(target=restart)
    thread.start()
    with_progress.with_progress(lambda progress: began.set()).put("model/b", {**FILES, "more": b"x" * 5 * BLOCK})
    thread.join()
    check_holds(published)
    check_holds(published, "model/b")


def test_a_server_that_stops_for_good_is_an_error_and_a_later_put_completes(own_rclone: Server) -> None:
    store = store_on(own_rclone)
    store.put("model/a", FILES)
    stopping = ObjectArtifactStore(store.url, {**own_rclone.options, "patience_s": 1})
    with pytest.raises(ServiceError, match="try again later"):
        stopping.with_progress(lambda progress: own_rclone.stop()).put("model/b", FILES)
    with pytest.raises(ServiceError):
        stopping.manifest("model/a")
    own_rclone.start()
    assert list(store.list()) == ["model/a"]
    store.put("model/b", FILES)
    check_holds(store)
    check_holds(store, "model/b")


def test_a_service_whose_disk_is_full_says_so_and_keeps_what_is_published(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(tmp_path / "small")]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    try:
        with rclone(tmp_path / "small") as server:
            store = store_on(server, patience_s=2)
            store.put("model/a", FILES)
            with pytest.raises(ArtifactError, match="full"):
                store.put("model/b", {"much": b"x" * 60_000_000})
            check_holds(store)
            assert list(store.list()) == ["model/a"]
            store.collect_garbage()
            store.put("model/c", {"little": b"x"})
    except ServerMissingError as error:
        pytest.skip(str(error))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


def test_the_latest_is_that_published_last(moto_server: Server) -> None:
    store = store_on(moto_server)
    with pytest.raises(ArtifactNotFoundError):
        store.latest()
    for artifact in ("model/b", "model/a", "run/c"):
        store.put(artifact, {"f": artifact.encode()})
        time.sleep(1.1)
    assert (store.latest("model/"), store.latest()) == ("model/a", "run/c")


def test_progress_is_told_and_an_address_leads_to_each_file(rclone_server: Server, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (2 * BLOCK + 5))
    told = []
    store = store_on(rclone_server)
    store.with_progress(told.append).put("model/a", {"big": tmp_path / "big", "small": b"1"})
    assert [(one.done, one.total) for one in told if one.name == "big"][-1] == (2 * BLOCK + 5, 2 * BLOCK + 5)
    assert store.file_url("model/a", "big").startswith(f"{store.address('model/a')}/put=")


@pytest.mark.parametrize("served", ["rclone_server", "moto_server", "azurite_server", "gcs_server"])
def test_large_files_go_in_parts_and_what_is_there_already_is_copied(
    served: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(request.getfixturevalue(served))
    store.put("model/a", FILES)
    check_holds(store)
    left = store.service.list("model/a")
    store.service.delete(["model/a/manifest.json"])
    sent = []
    monkeypatch.setattr(store.service, "upload", lambda key, *arguments: sent.append(key))
    store.put("model/a", FILES)
    assert sent == []
    check_holds(store)
    assert store.collect_garbage() == len(left) - 1
    check_holds(store)

"""Real object stores on loopback, each started once a test process, by whoever needs it first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from scripts.object_servers import Server, ServerMissingError, azurite, gcs, make_bucket, moto, rclone


def running(make: Callable[[], Server]) -> Iterator[Server]:
    """Yield a server that answers and has a bucket, or skip where it is not installed."""
    try:
        server = make().start()
    except ServerMissingError as error:
        pytest.skip(str(error))
    with server:
        if "--auth-key" not in server.command:
            make_bucket(server)
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The S3 protocol over a folder; ignores `If-None-Match`."""
    yield from running(lambda: rclone(tmp_path_factory.mktemp("rclone")))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    """The S3 protocol in memory; honours `If-None-Match`."""
    yield from running(moto)


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Server]:
    """Azure's own emulator, in memory."""
    yield from running(azurite)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Server]:
    """Google's XML API in memory: moto behind a translator of headers."""
    yield from running(gcs)

"""The store passes the kit that a stranger's must pass, on real servers: with and without conditional writes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import ClassVar

import pytest
from obstore.store import ObjectStore, from_url

from scripts.object_servers import Server
from shardfit.artifacts import MANIFEST_NAME, ArtifactStore
from shardfit.testing import StoreKit
from shardfit_stages.store import ObjectArtifactStore


class ObjectStoreKit(StoreKit):
    max_examples: ClassVar[int] = 3
    artifacts_at_once: ClassVar[int] = 3
    server: Server

    def make_store(self, folder: Path) -> ArtifactStore:
        return ObjectArtifactStore(f"{self.server.url}/{uuid.uuid4().hex}", {**self.server.options, "patience_s": 10})

    def read_raw(self, store: ArtifactStore, artifact: str, name: str) -> bytes:
        return bytes(self.client(store).get(self.key(store, artifact, name)).bytes())

    def write_raw(self, store: ArtifactStore, artifact: str, name: str, content: bytes | None) -> None:
        key = self.key(store, artifact, name)
        self.client(store).delete(key) if content is None else self.client(store).put(key, content)

    def key(self, store: ArtifactStore, artifact: str, name: str) -> str:
        if name == MANIFEST_NAME:
            return f"{artifact}/{name}"
        return f"{artifact}/{json.loads(self.read_raw(store, artifact, MANIFEST_NAME))['folder']}/{name}"

    def client(self, store: ArtifactStore) -> ObjectStore:
        url = store.address("x").rpartition("/")[0]
        return from_url(url, config=dict(self.server.options), client_options={"allow_http": True})


class TestObjectStoreOnRclone(ObjectStoreKit):
    @pytest.fixture(autouse=True)
    def served(self, rclone_server: Server) -> None:
        self.server = rclone_server


class TestObjectStoreOnMoto(ObjectStoreKit):
    @pytest.fixture(autouse=True)
    def served(self, moto_server: Server) -> None:
        self.server = moto_server


class TestObjectStoreOnAzurite(ObjectStoreKit):
    @pytest.fixture(autouse=True)
    def served(self, azurite_server: Server) -> None:
        self.server = azurite_server


class TestObjectStoreOnGoogleTranslated(ObjectStoreKit):
    @pytest.fixture(autouse=True)
    def served(self, gcs_server: Server) -> None:
        self.server = gcs_server

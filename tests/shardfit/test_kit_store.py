"""The local store passes the kit that a stranger's must pass."""

from __future__ import annotations

from pathlib import Path

from shardfit.artifacts import ArtifactStore
from shardfit.stores.local import LocalStore
from shardfit.testing import StoreKit


class TestLocalStore(StoreKit):
    def make_store(self, folder: Path) -> ArtifactStore:
        return LocalStore(folder)

    def read_raw(self, store: ArtifactStore, artifact: str, name: str) -> bytes:
        return Path(store.address(artifact), name).read_bytes()

    def write_raw(self, store: ArtifactStore, artifact: str, name: str, content: bytes | None) -> None:
        path = Path(store.address(artifact), name)
        path.unlink() if content is None else path.write_bytes(content)

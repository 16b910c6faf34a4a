"""Artifacts in a folder of this machine, or of a file system that several machines mount.

```
<root>/model/20260101-120000-1a2b3c/    one folder an artifact; none lies inside another
    manifest.json                       written last, before the folder is renamed to its place as a whole
    model.ubj                           the files
<root>/.staging/<random>/               being written, under a lock, or left by a writer that died; never read
<root>/.fences/<run id>/<attempt>       the highest number counts
<root>/.lock                            held for as long as a rename takes
```
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from shardfit.artifacts import (
    MANIFEST_NAME,
    ArtifactStore,
    Manifest,
    StoredFile,
    check_artifact_identifier,
    is_artifact_identifier,
)
from shardfit.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactExistsError,
    ArtifactNotFoundError,
    InvalidArgumentError,
    StaleAttemptError,
)
from shardfit.source import Claim
from shardfit.stores.arrivals import arriving_in, move_files
from shardfit.stores.files import (
    copy_checked,
    locked,
    remove_unlocked,
    staging_folder,
    sync_folders,
    sync_names,
    told_as_artifact_error,
    write_durably,
)
from shardfit.stores.manifests import check_names_to_put, encoded_manifest, manifest_from_json

Result = TypeVar("Result")


@dataclass(frozen=True)
class LocalStore(ArtifactStore):
    """An artifact store in a folder.

    Thread-safe and process-safe: of several writers of one artifact the first to rename its folder wins, and no
    artifact holds files of two writers. Durable: files, manifest and names are on the disk before `put` returns.
    Readers take no lock and need no write permission. On a file system that several machines mount, renames must be
    atomic and `flock` must work, which NFS version 4 provides.

    Args:
        root: The folder; made by the first `put`.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())

    def address(self, artifact: str) -> str:
        """Return the path of the artifact's folder."""
        return os.fspath(self._folder(artifact))

    def put(
        self,
        artifact: str,
        files: Mapping[str, bytes | Path],
        metadata: Mapping[str, Any] | None = None,
        attempt: int = 1,
    ) -> Manifest:
        """Publish `files` under the identifier, as a whole; see `ArtifactStore.put`."""
        folder, asked = self._folder(artifact), f"putting {artifact!r} into {os.fspath(self.root)!r}"
        check_names_to_put(files, asked)
        self._check_fence(artifact, attempt)
        with told_as_artifact_error(asked), staging_folder(self.root / ".staging") as staging:
            stored = (StoredFile(name, *write_durably(staging / name, files[name])) for name in sorted(files))
            manifest = Manifest(artifact, tuple(stored), dict(metadata or {}), attempt)
            write_durably(staging / MANIFEST_NAME, encoded_manifest(manifest, asked))
            sync_folders(staging)
            with locked(self.root / ".lock"):
                self._check_fence(artifact, attempt)
                self._check_nesting(folder, asked)
                if not folder.exists():
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    staging.rename(folder)
                    self._sync_above(folder)
                    return manifest
                existing = self.manifest(artifact)
        if existing.files != manifest.files:
            found = "other files are published under the identifier"
            raise ArtifactExistsError(asked, found, "Artifacts do not change; choose another identifier.")
        return existing

    def manifest(self, artifact: str) -> Manifest:
        """Return the manifest of a whole artifact; see `ArtifactStore.manifest`."""
        folder, asked = self._folder(artifact), f"reading the manifest of {artifact!r}"
        try:
            with told_as_artifact_error(asked):
                content = (folder / MANIFEST_NAME).read_bytes()
        except ArtifactError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                found = f"there is none in {os.fspath(self.root)!r}"
                raise ArtifactNotFoundError(f"looking for {artifact!r}", found) from error
            raise
        return manifest_from_json(content, artifact)

    def read(self, artifact: str, name: str) -> bytes:
        """Return the content of one file, checked against its digest; see `ArtifactStore.read`."""

        def read(manifest: Manifest) -> bytes:
            stored = {entry.name: entry for entry in manifest.files}.get(name)
            if stored is None:
                has = ", ".join(repr(entry.name) for entry in manifest.files) or "no file"
                raise ArtifactNotFoundError(
                    f"reading {name!r} of {artifact!r}", "it has no such file", f"It has {has}."
                )
            buffer = io.BytesIO()
            copy_checked(self._folder(artifact), stored, buffer)
            return buffer.getvalue()

        return self._while_it_stands(artifact, read)

    def get(self, artifact: str, directory: Path) -> Manifest:
        """Write every file of an artifact below `directory`, checked; see `ArtifactStore.get`."""

        def get(manifest: Manifest) -> Manifest:
            with arriving_in(directory) as arriving:
                for stored in manifest.files:
                    path = arriving / stored.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("xb") as file:
                        copy_checked(self._folder(artifact), stored, file)
                move_files(manifest, arriving, directory)
            return manifest

        return self._while_it_stands(artifact, get)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the identifiers of whole artifacts that start with `prefix`, sorted."""
        with told_as_artifact_error(f"listing {os.fspath(self.root)!r}"):
            identifiers = list(self._identifiers())
        yield from sorted(i for i in identifiers if i.startswith(prefix) and is_artifact_identifier(i))

    def delete(self, artifact: str) -> None:
        """Remove an artifact; none there is no error."""
        folder, trash = self._folder(artifact), self.root / ".staging" / uuid.uuid4().hex
        if not (folder / MANIFEST_NAME).exists():
            return
        with told_as_artifact_error(f"deleting {artifact!r} from {os.fspath(self.root)!r}"):
            trash.parent.mkdir(exist_ok=True)
            with locked(self.root / ".lock"):
                if not (folder / MANIFEST_NAME).exists():
                    return
                folder.rename(trash)
                for parent in self._above(folder):
                    if any(parent.iterdir()):
                        break
                    parent.rmdir()
                sync_names(self.root)
            shutil.rmtree(trash, ignore_errors=True)

    def collect_garbage(self) -> int:
        """Remove what writers that died have left; return how many files went."""
        staging = self.root / ".staging"
        with told_as_artifact_error(f"collecting garbage in {os.fspath(self.root)!r}"):
            folders = sorted(staging.iterdir()) if staging.exists() else []
            return sum(remove_unlocked(folder) for folder in folders)

    def fence(self, run_id: str, attempt: int) -> None:
        """Refuse every later `put` below `run/{run_id}/` and `model/{run_id}` by an older attempt."""
        fences = self.root / ".fences" / check_artifact_identifier(run_id).replace("/", "+")
        with told_as_artifact_error(f"fencing attempt {attempt} of run {run_id!r}"):
            fences.mkdir(parents=True, exist_ok=True)
            with locked(self.root / ".lock"):
                (fences / str(attempt)).touch()
                sync_folders(fences)

    def _folder(self, artifact: str) -> Path:
        return self.root / check_artifact_identifier(artifact)

    def _above(self, folder: Path) -> Sequence[Path]:
        return [parent for parent in folder.parents if self.root in parent.parents]

    def _sync_above(self, folder: Path) -> None:
        for parent in [*self._above(folder), self.root]:
            sync_names(parent)

    def _check_nesting(self, folder: Path, asked: str) -> None:
        taken = [parent for parent in self._above(folder) if (parent / MANIFEST_NAME).exists()]
        if folder.exists() and not (folder / MANIFEST_NAME).exists():
            taken.append(folder)
        if taken:
            found = f"{os.fspath(taken[0].relative_to(self.root))!r} is there"
            raise ArtifactExistsError(asked, found, "No artifact can lie inside another; choose another identifier.")

    def _identifiers(self) -> Iterator[str]:
        for path, folders, files in os.walk(self.root):
            folders[:] = [] if MANIFEST_NAME in files else [name for name in folders if not name.startswith(".")]
            if MANIFEST_NAME in files:
                yield Path(path).relative_to(self.root).as_posix()

    def _check_fence(self, artifact: str, attempt: int) -> None:
        kind, *rest = artifact.split("/")
        fences = self.root / ".fences" / (rest[0] if rest else "")
        if kind not in ("run", "model") or not rest or not fences.is_dir():
            return
        newest = max((int(path.name) for path in fences.iterdir() if path.name.isdigit()), default=attempt)
        if newest > attempt:
            asked = f"putting {artifact!r}, attempt {attempt}"
            raise StaleAttemptError(asked, f"attempt {newest} has taken over", "This worker is no longer part of it.")

    def _while_it_stands(self, artifact: str, use: Callable[[Manifest], Result]) -> Result:
        while True:
            manifest = self.manifest(artifact)
            try:
                with told_as_artifact_error(f"reading {artifact!r}"):
                    return use(manifest)
            except ArtifactNotFoundError:
                raise
            except ArtifactError as error:
                # Deleted meanwhile is gone, not corrupt; put anew meanwhile is worth another look.
                if self.manifest(artifact) != manifest:
                    continue
                if isinstance(error.__cause__, FileNotFoundError):
                    found = f"{os.fspath(error.__cause__.filename or '')!r} is missing"
                    raise ArtifactCorruptError(error.asked, found, "Put the artifact again.") from error
                raise


class LocalStoreOpener:
    """Opens paths and `file://` URLs as `LocalStore`."""

    def claims(self, location: str) -> Claim | None:
        """Return a claim on paths and `file://` URLs."""
        # What begins with `@` is the name of a stage, whether or not the plugin that knows stages is there.
        if not isinstance(location, str) or not location or location.startswith("@"):
            return None
        if "://" in location:
            return Claim(10, "a file:// URL") if location.startswith("file://") else None
        return Claim(10, "a path") if location.startswith(("/", ".", "~")) else Claim(1, "any text may be a path")

    def open(self, location: str, options: Mapping[str, Any]) -> LocalStore:
        """Return the store in the folder; nothing is made or read yet."""
        asked = f"opening the artifact store {location!r}"
        if options:
            raise InvalidArgumentError(asked, f"found the options {sorted(options)!r}", "A local store takes none.")
        if not location.startswith("file://"):
            return LocalStore(Path(location))
        url = urlsplit(location)
        if url.netloc not in ("", "localhost") or not url.path:
            raise InvalidArgumentError(asked, f"found the host {url.netloc!r}", "Write file:///absolute/path.")
        return LocalStore(Path(unquote(url.path)))


def user_stage_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own stage on this machine.

    Args:
        environ: `SHARDFIT_STAGE_ROOT` names another folder.
    """
    if root := environ.get("SHARDFIT_STAGE_ROOT"):
        return Path(root).expanduser()
    # Here, because few runs need it and it costs an import.
    from platformdirs import user_data_path

    return user_data_path("shardfit", appauthor=False) / "stages" / "user"

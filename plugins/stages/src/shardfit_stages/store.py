"""Artifacts in an object store: S3, Google Cloud Storage, Azure Blob Storage. `layout.py` shows where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from shardfit.artifacts import ArtifactStore, Manifest, check_artifact_identifier
from shardfit.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StaleAttemptError
from shardfit.redaction import redact_url
from shardfit.stores.files import told_as_artifact_error
from shardfit.stores.local import LocalStoreOpener
from shardfit.stores.manifests import check_names_to_put
from shardfit_stages.credentials import HiddenOptions, check_url, own_options
from shardfit_stages.garbage import collect_garbage
from shardfit_stages.identity import this_process
from shardfit_stages.layout import FENCES, artifacts_of, file_key, manifest_key, new_put
from shardfit_stages.marks import LifeSign, publishing
from shardfit_stages.progress import ProgressSink
from shardfit_stages.reading import Published, Reader, read_published
from shardfit_stages.service import ObjectService, StoredObject
from shardfit_stages.service_errors import ServiceError
from shardfit_stages.uploads import Uploader, content_size, described

_NOT_CHANGED = "Artifacts do not change; choose another identifier."


class ObjectArtifactStore(ArtifactStore):
    """An artifact store below a URL of an object store.

    Thread-safe and process-safe, on any number of machines, whatever their clocks say. Atomic by its manifest, which
    is written last and only if there is none: by a conditional write where the service has it, and besides by a lock
    that needs no more than lists which show what was written before, as S3, Google Cloud Storage and Azure promise.
    Where a service ignores the condition (`check_store` tells) the lock alone counts: a writer that stops for longer
    than its lease, in the middle of one small request, could then publish beside another. Durable as the service is.

    Args:
        url: `s3://bucket/path`, `gs://bucket/path` or `az://container/path`.
        options: Passed on to the service's client, for example `endpoint`, `region`, `account_name`; their secrets are
            never shown. `patience_s` (120): how long what fails is tried again. `life_s` (900): after how long a
            writer without a sign of life is dead. `lease_s` (120): the same for one that publishes. Both must be the
            same for all that use the stage.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = check_url(url)
        self._options = HiddenOptions(options or {})
        self._own = own_options(self._options)
        self._progress: ProgressSink | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({redact_url(self.url)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.url, dict(self._options)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectArtifactStore) and other.__reduce__()[1] == self.__reduce__()[1]

    def __hash__(self) -> int:
        return hash(self.url)

    @cached_property
    def service(self) -> ObjectService:
        """The service; opened when it is first used, in each process."""
        return ObjectService(self.url, self._options, self._own["patience_s"])

    def with_progress(self, progress: ProgressSink) -> ObjectArtifactStore:
        """Return the same store, whose uploads tell `progress` how far they are; pickled, it does so no more."""
        store = type(self)(self.url, self._options)
        store._progress = progress
        return store

    def address(self, artifact: str) -> str:
        """Return the URL of the artifact."""
        return f"{redact_url(self.url)}/{check_artifact_identifier(artifact)}"

    def put(
        self,
        artifact: str,
        files: Mapping[str, bytes | Path],
        metadata: Mapping[str, Any] | None = None,
        attempt: int = 1,
    ) -> Manifest:
        """Publish `files` under the identifier, as a whole; see `ArtifactStore.put`."""
        asked = f"putting {check_artifact_identifier(artifact)!r} into {redact_url(self.url)!r}"
        check_names_to_put(files, asked)
        empty = Published(Manifest(artifact, (), dict(metadata or {}), attempt), new_put())
        empty.to_json(asked)
        self._check_fence(artifact, attempt)
        with told_as_artifact_error(asked):
            if (existing := self._existing(artifact, asked)) is not None:
                return _same(existing, files, asked)
            sign = LifeSign(self.service, artifact, empty.put, self._own["life_s"])
            try:
                with sign:
                    published = self._upload(empty, files)
                    manifest = self._publish(published, sign, asked)
            except _UnknownOutcomeError:
                # The manifest may still arrive, so its files stay, and their mark keeps them until it dies. So it is
                # where an interrupt comes.
                raise
            except Exception as error:
                # What a failing service has taken by now need not be sent again by the next put.
                if not isinstance(error, ServiceError):
                    self._remove_files(artifact, empty.put)
                sign.remove()
                raise
            sign.remove()
            return manifest

    def manifest(self, artifact: str) -> Manifest:
        """Return the manifest of a whole artifact; see `ArtifactStore.manifest`."""
        return Reader(self.service).published(check_artifact_identifier(artifact)).manifest

    def file_url(self, artifact: str, name: str) -> str:
        """Return the URL of one file of a whole artifact, for tools that read from the service themselves.

        Raises:
            ArtifactNotFoundError: No such artifact.
        """
        published = Reader(self.service).published(check_artifact_identifier(artifact))
        return f"{redact_url(self.url)}/{file_key(artifact, published.put, name)}"

    def read(self, artifact: str, name: str) -> bytes:
        """Return the content of one file, checked against its digest; see `ArtifactStore.read`."""
        return Reader(self.service).read(check_artifact_identifier(artifact), name)

    def get(self, artifact: str, directory: Path) -> Manifest:
        """Write every file of an artifact below `directory`, checked; see `ArtifactStore.get`."""
        return Reader(self.service).get(check_artifact_identifier(artifact), directory)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the identifiers of whole artifacts that start with `prefix`, sorted."""
        found = self.service.list(prefix.rpartition("/")[0])
        yield from sorted(i for i in artifacts_of(one.key for one in found) if i.startswith(prefix))

    def latest(self, prefix: str = "") -> str:
        """Return the identifier published last, by the service's clock, among those that start with `prefix`.

        Raises:
            ArtifactNotFoundError: None does.
        """
        found = self.service.list(prefix.rpartition("/")[0])
        dated = [(one.changed, artifact) for one in found for artifact in artifacts_of([one.key])]
        dated = [one for one in dated if one[1].startswith(prefix)]
        if not dated:
            raise ArtifactNotFoundError(f"looking for the latest {prefix!r}", f"there is none in {self.service.url!r}")
        return max(dated)[1]

    def delete(self, artifact: str) -> None:
        """Remove an artifact; none there is no error. A manifest that is corrupt goes, its files are garbage then."""
        asked = f"deleting {check_artifact_identifier(artifact)!r} from {redact_url(self.url)!r}"
        if not self._is_there(artifact):
            return
        with publishing(self.service, artifact, asked, self._own["lease_s"]) as check:
            published = None
            with suppress(ArtifactError):
                published = read_published(self.service, artifact)
            check()
            self.service.delete([manifest_key(artifact)])
        if published is not None:
            self._remove_files(artifact, published.put)

    def collect_garbage(self) -> int:
        """Remove what never got its manifest and is not being written; return how many files went."""
        return collect_garbage(self.service, self._own["life_s"], self._own["lease_s"])

    def fence(self, run_id: str, attempt: int) -> None:
        """Refuse every later `put` below `run/{run_id}/` and `model/{run_id}` by an older attempt."""
        asked = f"fencing attempt {attempt} of run {check_artifact_identifier(run_id)!r}"
        lease_s = self._own["lease_s"]
        self.service.put(f"{FENCES}/{run_id}/attempt={attempt}", this_process())
        # Whoever begins to publish from now on sees it; whoever may have looked before is waited for.
        with publishing(self.service, f"run/{run_id}", asked, lease_s):
            pass
        with publishing(self.service, f"model/{run_id}", asked, lease_s):
            pass

    def _upload(self, empty: Published, files: Mapping[str, bytes | Path]) -> Published:
        artifact = empty.manifest.artifact
        left = self.service.list(artifact)
        stored = Uploader(self.service, artifact, empty.put, self._progress).upload(files, left)
        return Published(Manifest(artifact, stored, empty.manifest.metadata, empty.manifest.attempt), empty.put)

    def _publish(self, published: Published, sign: LifeSign, asked: str) -> Manifest:
        manifest = published.manifest
        with publishing(self.service, manifest.artifact, asked, self._own["lease_s"]) as check:
            self._check_fence(manifest.artifact, manifest.attempt)
            existing = self._existing(manifest.artifact, asked)
            if existing is None:
                sign.check(asked)
                check()
                existing = self._create(published, asked)
        if existing.put == published.put:
            return manifest
        if existing.manifest.files != manifest.files:
            raise ArtifactExistsError(asked, "other files are published under the identifier", _NOT_CHANGED)
        self._remove_files(manifest.artifact, published.put)
        return existing.manifest

    def _create(self, published: Published, asked: str) -> Published:
        artifact = published.manifest.artifact
        lost: ArtifactError | None = None
        try:
            self.service.create(manifest_key(artifact), published.to_json(asked))
        except ArtifactError as error:
            # Even one that is refused: it may be the second of a request of which the first has arrived.
            lost = error
        advice = "Whether the manifest was written is not known: put again, which does no harm."
        try:
            found = read_published(self.service, artifact)
        except ArtifactError as error:
            raise _UnknownOutcomeError(asked, error.found, f"{error.advice} {advice}".strip()) from error
        if found is None:
            why = (lost.found, f"{lost.advice} {advice}".strip()) if lost else ("the manifest is not there", advice)
            raise _UnknownOutcomeError(asked, *why) from lost
        return found

    def _existing(self, artifact: str, asked: str) -> Published | None:
        within = artifact.split("/")
        above = ["/".join(within[:depth]) for depth in range(1, len(within))]
        taken = [other for other in above if self._is_there(other)]
        below: Sequence[StoredObject] = self.service.list(artifact)
        taken += [other for other in artifacts_of(one.key for one in below) if other != artifact]
        if taken:
            advice = "No artifact can lie inside another; choose another identifier."
            raise ArtifactExistsError(asked, f"{taken[0]!r} is there", advice)
        return read_published(self.service, artifact)

    def _is_there(self, artifact: str) -> bool:
        with suppress(FileNotFoundError):
            self.service.size(manifest_key(artifact))
            return True
        return False

    def _check_fence(self, artifact: str, attempt: int) -> None:
        kind, *rest = artifact.split("/")
        if kind not in ("run", "model") or not rest:
            return
        folder = f"{FENCES}/{rest[0]}/attempt="
        numbers = [one.key.removeprefix(folder) for one in self.service.list(f"{FENCES}/{rest[0]}")]
        newest = max((int(number) for number in numbers if number.isdigit()), default=attempt)
        if newest > attempt:
            asked = f"putting {artifact!r}, attempt {attempt}"
            raise StaleAttemptError(asked, f"attempt {newest} has taken over", "This worker is no longer part of it.")

    def _remove_files(self, artifact: str, put: str) -> None:
        # What stays here is garbage, and collected as such.
        with suppress(ArtifactError):
            self.service.delete([one.key for one in self.service.list(f"{artifact}/{put}")])


class _UnknownOutcomeError(ServiceError):
    """Nobody knows whether the manifest arrived."""


def _same(existing: Published, files: Mapping[str, bytes | Path], asked: str) -> Manifest:
    stored = {one.name: one for one in existing.manifest.files}
    same = stored.keys() == files.keys() and all(
        content_size(content) == stored[name].size and described(name, content) == stored[name]
        for name, content in files.items()
    )
    if not same:
        raise ArtifactExistsError(asked, "other files are published under the identifier", _NOT_CHANGED)
    return existing.manifest


def open_object_store(url: str, options: Mapping[str, Any] | None = None) -> ArtifactStore:
    """Return the store at `url`: an object store for s3, gs and az, the core's own for `file://` URLs and paths.

    Args:
        url: Where it is.
        options: For object stores only; passed on to the service's client.

    Raises:
        InvalidArgumentError: The URL or an option cannot be used.
    """
    if "://" not in url or url.startswith("file://"):
        return LocalStoreOpener().open(url, options or {})
    return ObjectArtifactStore(url, options)

"""Files on any storage that pyarrow can reach: addresses, versions, opening."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from shardfit.errors import ChangedDataError, InvalidArgumentError, SourceNotFoundError, UnreadableSourceError
from shardfit.redaction import redact_url
from shardfit.source import Fragment

_STORAGE = {
    "s3": "S3FileSystem",
    "gs": "GcsFileSystem",
    "abfss": "AzureFileSystem",
    "hdfs": "HadoopFileSystem",
    "file": "LocalFileSystem",
}
_SAME_STORAGE = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss", "viewfs": "hdfs"}


class ListedFile(NamedTuple):
    """A file that was found.

    Args:
        uri: Canonical address, without secrets.
        version: Size and time of modification, as `Fragment.version` starts.
        size: Bytes.
    """

    uri: str
    version: str
    size: int


@dataclass(frozen=True)
class FileAccess:
    """A file system and the canonical addresses of the files in it; pickled to workers.

    Symbolic links are not followed in addresses, since they may lead elsewhere on another node.

    Args:
        filesystem: Opens the files.
        prefix: What a path is preceded by to make its canonical address, for example `s3://`.
    """

    filesystem: pafs.FileSystem
    prefix: str

    def uri(self, path: str) -> str:
        """Return the canonical address of a path of the file system."""
        return self.prefix + quote(path, safe="/=:,+@ ")

    def path(self, uri: str) -> str:
        """Return the path of a canonical address."""
        return unquote(uri.removeprefix(self.prefix))

    def listed(self, info: pafs.FileInfo) -> ListedFile:
        """Return what is known of a file."""
        return ListedFile(self.uri(info.path), _version(info), info.size or 0)

    def open(self, uri: str) -> pa.NativeFile:
        """Open a file for reading anywhere in it.

        Raises:
            UnreadableSourceError: It cannot be opened.
        """
        try:
            return self.filesystem.open_input_file(self.path(uri))
        except (OSError, pa.ArrowException) as error:
            raise UnreadableSourceError(
                f"opening {uri!r}", _reason(error), "Check that the file exists and may be read."
            ) from error

    def open_stream(self, uri: str) -> pa.NativeFile:
        """Open a file for reading from its start, decompressed by its suffix.

        Raises:
            OSError: It cannot be opened.
        """
        return self.filesystem.open_input_stream(self.path(uri), compression="detect")

    def check_version(self, fragment: Fragment) -> None:
        """Check that a file is still the one that was planned, by its size and time of modification.

        Raises:
            ChangedDataError: It is gone, or another.
        """
        info = self.filesystem.get_file_info(self.path(fragment.uri))
        found = "nothing" if info.type != pafs.FileType.File else _version(info)
        if found != fragment.version.partition(";")[0]:
            raise _changed(fragment, found)

    def open_planned(self, fragment: Fragment) -> pa.NativeFile:
        """Open the file of a fragment for reading anywhere in it, if it is still the one that was planned.

        Raises:
            ChangedDataError: It is another, by its size, time of modification or entity tag.
            UnreadableSourceError: It cannot be opened.
        """
        file = self.open(fragment.uri)
        found = version_with_tag(fragment.version.partition(";")[0], file)
        if found != fragment.version:
            file.close()
            raise _changed(fragment, found)
        return file

    @contextmanager
    def planned(self, fragment: Fragment, unreadable: Callable[[Exception], UnreadableSourceError]) -> Iterator[None]:
        """Check before and after a block that reads a fragment that its file is the one that was planned.

        Args:
            fragment: What is read.
            unreadable: Returns the error for what fails in the block while the file is the planned one.

        Raises:
            ChangedDataError: The file is gone, or another.
            UnreadableSourceError: Reading failed.
        """
        self.check_version(fragment)
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ChangedDataError | UnreadableSourceError | MemoryError):
                raise
            self.check_version(fragment)
            raise unreadable(error) from error
        self.check_version(fragment)


def version_with_tag(version: str, file: pa.NativeFile) -> str:
    """Return a version that also holds the entity tag of an open file, where its storage has such tags."""
    tag = {key.lower(): value for key, value in (file.metadata() or {}).items()}.get(b"etag")
    return f"{version};{tag.decode()}" if tag else version


def has_scheme(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def open_storage(paths: list[str], options: Mapping[str, Any]) -> tuple[FileAccess, list[str]]:
    """Return the file system that `paths` are in, and the paths within it.

    Args:
        paths: Local paths or URLs, all on one storage; one or more.
        options: `storage_options` and `filesystem`, both optional; others are ignored.

    Raises:
        InvalidArgumentError: The paths are on several storages, or the scheme is not known.
        SourceNotFoundError: The storage cannot be reached.
    """
    filesystem = options.get("filesystem")
    if filesystem is not None:
        # What Python implements is called "py::..." by Arrow, which is no scheme.
        return FileAccess(filesystem, f"{filesystem.type_name.removeprefix('py::')}://"), paths
    if not any(map(has_scheme, paths)):
        local = [os.path.abspath(os.path.expanduser(path)) for path in paths]  # noqa: PTH100, PTH111 - globs pass too
        return FileAccess(pafs.LocalFileSystem(), "file://"), [path.replace(os.sep, "/") for path in local]
    if len(roots := {_storage_root(path) for path in paths}) > 1:
        raise InvalidArgumentError(
            "opening files",
            f"found {len(roots)} storages: {sorted(redact_url(root[2]) for root in roots)!r}",
            "Make one connector for each and join them with DataConnector.from_sources.",
        )
    scheme, prefix, root = roots.pop()
    filesystem = _connect(scheme, root, options.get("storage_options") or {})
    return FileAccess(filesystem, prefix), [_path_in_storage(path) for path in paths]


def _split(url: str) -> tuple[str, str, str, str, str]:
    """Return scheme, user, host, path and query; `urlsplit` would take `#` and `[` of a glob for its own."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "file", "", "", os.path.abspath(url), ""  # noqa: PTH100
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    scheme = scheme.lower()
    return _SAME_STORAGE.get(scheme, scheme), user, host, slash + path, query


def _storage_root(url: str) -> tuple[str, str, str]:
    """Return the scheme, the prefix of canonical addresses, and a URL that is enough to connect."""
    scheme, user, host, _, query = _split(url)
    question = f"?{query}" if query else ""
    if scheme == "file":
        return scheme, "file://", "file:///"
    if scheme == "abfss":
        secret = user.partition(":")[2]
        account = f":{secret}@{host}" if secret else host
        return scheme, f"abfss://{host}/", f"abfss://{account}/{question}"
    if scheme in {"s3", "gs"}:
        # Buckets of one account are reached through one file system.
        login = f"{user}@" if user else ""
        return scheme, f"{scheme}://", f"{scheme}://{login}{host}/{question}"
    return scheme, f"{scheme}://{host}", f"{scheme}://{user}{'@' if user else ''}{host}/{question}"


def _path_in_storage(url: str) -> str:
    scheme, user, host, path, _ = _split(url)
    path = unquote(path)
    if scheme in {"s3", "gs"}:
        return host + path
    container = user.partition(":")[0]
    if scheme == "abfss":
        return f"{container}{path}" if container else path.removeprefix("/")
    return path


def _connect(scheme: str, root: str, storage_options: Mapping[str, Any]) -> pafs.FileSystem:
    if scheme not in _STORAGE:
        raise InvalidArgumentError(
            f"opening {redact_url(root)!r}",
            f"found the scheme {scheme!r}",
            f"Use {', '.join(_STORAGE)}, a local path, or pass filesystem=.",
        )
    try:
        if not storage_options:
            return pafs.FileSystem.from_uri(root)[0]
        given = dict(storage_options)
        if scheme == "s3" and not given.keys() & {"region", "endpoint_override"}:
            given["region"] = pafs.resolve_s3_region(_split(root)[2])
        return getattr(pafs, _STORAGE[scheme])(**given)
    except (OSError, pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        # Without the cause: Arrow repeats the URL in its messages, password and all.
        raise SourceNotFoundError(
            f"connecting to {redact_url(root)!r}",
            _reason(error).replace(root, redact_url(root)),
            "Check the URL and the storage options.",
        ) from None


def _changed(fragment: Fragment, found: str) -> ChangedDataError:
    """Return the error for a fragment that is no longer what was planned."""
    return ChangedDataError(
        f"reading {fragment}",
        f"planned version {fragment.version!r}, found {found!r}",
        "The file was replaced or altered after planning; run again, and write new files beside old ones.",
    )


def _version(info: pafs.FileInfo) -> str:
    return f"{info.size}-{info.mtime_ns}"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__

"""Files of an object store as a `pyarrow.fs` file system, which the core's sources read from: obstore's range reads."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import obstore
import pyarrow as pa
import pyarrow.fs as pafs

from shardfit_stages.credentials import check_url, client_settings

_SECOND = 10**9
_PART = 8 * 2**20
_PATIENCE_S, _REQUEST_S = 60.0, 120.0
_READ_ONLY = "stages are read only here"


class _ObjectMeta(Protocol):
    def __getitem__(self, key: str) -> Any: ...


class ObjectFiles(pafs.FileSystemHandler):  # type: ignore[misc]
    """The objects of one bucket, read only. Paths are `<bucket>/<key>`; pickled to workers with its credentials.

    Args:
        store: An obstore store at the root of the bucket.
        bucket: Name of the bucket or container.
        scheme: `s3`, `gs` or `az`.
    """

    def __init__(self, store: Any, bucket: str, scheme: str) -> None:
        self._store = store
        self._bucket = bucket
        self._scheme = scheme

    # Arrow compares file systems, and stores have no other identity.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectFiles) and other.__reduce__()[1] == self.__reduce__()[1]

    def __hash__(self) -> int:
        return hash((self._bucket, self._scheme))

    def __reduce__(self) -> tuple[type[ObjectFiles], tuple[Any, str, str]]:
        return ObjectFiles, (self._store, self._bucket, self._scheme)

    def get_type_name(self) -> str:
        """Return the scheme, which canonical addresses begin with."""
        return self._scheme

    def normalize_path(self, path: str) -> str:
        """Return the path without slashes at its ends."""
        return path.strip("/")

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        """Return what each path is: an object, a prefix of some, or nothing."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """Return the objects below a prefix, and the prefixes where it is not recursive."""
        prefix = self._key(selector.base_dir)
        with _as_os_error(selector.base_dir):
            if selector.recursive:
                objects = list(self._objects(prefix))
                folders: Sequence[str] = ()
            else:
                listed = obstore.list_with_delimiter(self._store, prefix or None)
                objects, folders = list(listed["objects"]), list(listed["common_prefixes"])
        if not objects and not folders and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        found = [pafs.FileInfo(self._path(folder), pafs.FileType.Directory) for folder in folders]
        # What ends in a slash is how some tools mark a folder.
        return found + [self._file(item) for item in objects if not str(item["path"]).endswith("/")]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object for reading anywhere in it."""
        with _as_os_error(path):
            size = int(obstore.head(self._store, self._key(path))["size"])
        return pa.PythonFile(_RangeFile(self._store, self._key(path), size), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object for reading from its start."""
        return self.open_input_file(path)

    def _info(self, path: str) -> pafs.FileInfo:
        key = self._key(path)
        with _as_os_error(path):
            if key:
                try:
                    return self._file(obstore.head(self._store, key))
                except FileNotFoundError:
                    pass
            below = next(islice(self._objects(key), 1), None)
        return pafs.FileInfo(path, pafs.FileType.NotFound if below is None else pafs.FileType.Directory)

    def _objects(self, prefix: str) -> Iterator[_ObjectMeta]:
        for batch in obstore.list(self._store, prefix or None):
            yield from batch

    def _file(self, meta: _ObjectMeta) -> pafs.FileInfo:
        # Services tell times to the second, within which a file can be written twice: the entity tag fills the rest.
        moment = int(meta["last_modified"].timestamp()) * _SECOND
        tag = int.from_bytes(hashlib.sha256(str(meta["e_tag"]).encode()).digest()[:8], "big") % _SECOND
        return pafs.FileInfo(
            self._path(meta["path"]), pafs.FileType.File, size=int(meta["size"]), mtime_ns=moment + tag
        )

    def _key(self, path: str) -> str:
        return path.strip("/").removeprefix(self._bucket).strip("/")

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{key.rstrip('/')}"

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        raise OSError(_READ_ONLY)

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse


class _RangeFile(io.RawIOBase):
    """An object as a file: each read is a request of its range, a long one several at the same time."""

    def __init__(self, store: Any, key: str, size: int) -> None:
        self._store, self._key, self._size = store, key, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if stop <= self._at:
            return b""
        starts = list(range(self._at, stop, _PART))
        with _as_os_error(self._key):
            parts = obstore.get_ranges(
                self._store, self._key, starts=starts, ends=[min(start + _PART, stop) for start in starts]
            )
        self._at = stop
        return b"".join(bytes(part) for part in parts)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _as_os_error:  # noqa: N801 - reads as a statement
    """Turn what obstore raises into errors of the operating system, which the core's sources tell about."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: object) -> None:
        if value is None or isinstance(value, OSError) or not isinstance(value, obstore.exceptions.BaseError):
            return
        # Without the cause: services repeat requests in their messages, signatures and all.
        raise OSError(f"{type(value).__name__} at {self._path!r}") from None


class UnusableOptions(Exception):  # noqa: N818 - never reaches a user
    """The client of a service refuses its URL or options; says which class of error, and no value."""


def connect(url: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[pafs.FileSystem, str]:
    """Return the file system that a URL is in, and its path there.

    Args:
        url: `s3://bucket/key`, `gs://`, `az://` or `abfss://`.
        options: As for the artifact store.
        environ: Where credentials may be.

    Raises:
        UnusableOptions: The client cannot be made.
        InvalidArgumentError: The URL holds more than a bucket and a path.
    """
    scheme, _, rest = check_url(url).partition("://")
    authority, _, key = rest.partition("/")
    root = f"{scheme}://{authority}"
    try:
        store = obstore.store.from_url(root, **client_settings(root, options, environ, _PATIENCE_S, _REQUEST_S))
    except (obstore.exceptions.BaseError, ValueError, TypeError) as error:
        # Without the message, which repeats URL and options, secrets and all.
        raise UnusableOptions(f"{type(error).__name__} with the options {sorted(options)!r}") from None
    bucket = authority.partition("@")[0]
    return pafs.PyFileSystem(ObjectFiles(store, bucket, scheme.lower())), f"{bucket}/{key}"

"""Finding files: paths, folders, globs, URLs and lists of them, in one canonical order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from shardfit.errors import InvalidArgumentError, SourceNotFoundError, UnreadableSourceError
from shardfit.redaction import redact_url
from shardfit.sources.file_access import FileAccess, ListedFile, has_scheme, open_storage

_MAGIC = re.compile(r"[*?\[]")


def paths_of(data: object) -> list[str] | None:
    """Return `data` as a list of paths, or None where it is neither a path nor a list of paths."""
    if isinstance(data, str | os.PathLike):
        return [str(os.fspath(data))]
    if isinstance(data, list | tuple) and data and all(isinstance(path, str | os.PathLike) for path in data):
        return [str(os.fspath(path)) for path in data]
    return None


def has_suffix(path: str, suffixes: Sequence[str]) -> bool:
    """Return whether a path, glob or URL ends in one of `suffixes`, whatever the case."""
    return (path.partition("?")[0] if has_scheme(path) else path).lower().endswith(tuple(suffixes))


def list_files(
    paths: Sequence[str], suffixes: Sequence[str], options: Mapping[str, Any]
) -> tuple[FileAccess, tuple[ListedFile, ...]]:
    """Return every file that `paths` lead to, sorted by canonical address, and how to open them.

    A path that exists is taken as it is. Otherwise `*`, `?`, `[...]` and `**` (which crosses folders) are a glob; `?`
    is none in a URL. Folders are searched recursively for files that end in one of `suffixes`, or have no suffix at
    all; below them, names that start with `.` or `_` are skipped.

    Args:
        paths: Local paths or URLs.
        suffixes: In lower case, with the dot.
        options: As for `open_storage`.

    Raises:
        SourceNotFoundError: A path leads to no file; says which.
        InvalidArgumentError: A file is named twice, or the paths are on several storages.
        UnreadableSourceError: A folder cannot be listed.
    """
    if not paths:
        raise SourceNotFoundError("listing files", "found an empty list of paths", "Pass at least one path.")
    access, places = open_storage(list(paths), options)
    finder = _Finder(access.filesystem, suffixes)
    files: dict[str, tuple[ListedFile, str]] = {}
    for given, found in zip(paths, finder.find(places, paths), strict=True):
        for info in found:
            file = access.listed(info)
            if file.uri in files:
                names = sorted({redact_url(given), redact_url(files[file.uri][1])})
                raise InvalidArgumentError(
                    f"listing {names!r}", f"found {file.uri!r} twice", "Name each file once; its rows count once."
                )
            files[file.uri] = (file, given)
    return access, tuple(file for _, (file, _) in sorted(files.items()))


class _Finder:
    def __init__(self, filesystem: pafs.FileSystem, suffixes: Sequence[str]) -> None:
        self._filesystem = filesystem
        self._suffixes = tuple(suffixes)

    def find(self, places: Sequence[str], given: Sequence[str]) -> Iterator[list[pafs.FileInfo]]:
        """Yield what each place leads to; `given` are the same places in the user's words."""
        for info, place, words in zip(self._infos(places), places, given, strict=True):
            if info.type == pafs.FileType.File:
                yield [info]
                continue
            folder = info.type == pafs.FileType.Directory
            found = list(self._in_folder(place) if folder else self._in_glob(place, words))
            if not found:
                what = "a folder without files that end in " if folder else "no file there; looked for "
                looked_for = ", ".join(self._suffixes) if folder else repr(redact_url(words))
                raise SourceNotFoundError(
                    f"listing {redact_url(words)!r}", f"found {what}{looked_for}", "Check the path."
                )
            yield found

    def _infos(self, places: Sequence[str]) -> list[pafs.FileInfo]:
        try:
            infos: list[pafs.FileInfo] = self._filesystem.get_file_info(list(places))
        except (OSError, pa.ArrowException) as error:
            raise UnreadableSourceError("looking for files", str(error), "Check access and network.") from error
        return infos

    def _in_folder(self, folder: str) -> Iterator[pafs.FileInfo]:
        for info, relative in self._below(folder):
            if self._is_data(relative):
                yield info

    def _in_glob(self, pattern: str, words: str) -> Iterator[pafs.FileInfo]:
        magic = re.compile(r"[*\[]") if has_scheme(words) else _MAGIC
        parts = pattern.split("/")
        first = next((i for i, part in enumerate(parts) if magic.search(part)), None)
        if first is None:
            return
        yield from self._matching("/".join(parts[:first]) or "/", parts[first:])

    def _matching(self, folder: str, parts: Sequence[str]) -> Iterator[pafs.FileInfo]:
        """Yield the files below `folder` that a glob leads to; lists no folder that the glob does not name."""
        name, *rest = parts
        if name == "**":
            yield from self._matching_at_any_depth(folder, "/".join(parts))
            return
        wanted = re.compile(_glob_to_regex(name))
        for info in self._list(folder, recursive=False):
            if info.base_name[:1] in {".", "_"} or not wanted.fullmatch(info.base_name):
                continue
            if info.type == pafs.FileType.Directory:
                yield from self._matching(info.path, rest) if rest else self._in_folder(info.path)
            elif info.type == pafs.FileType.File and not rest:
                yield info

    def _matching_at_any_depth(self, folder: str, pattern: str) -> Iterator[pafs.FileInfo]:
        file, below = re.compile(_glob_to_regex(pattern)), re.compile(_glob_to_regex(pattern) + "/(.+)")
        for info, relative in self._below(folder):
            inner = below.fullmatch(relative)
            if file.fullmatch(relative) or (inner and self._is_data(inner[1])):
                yield info

    def _below(self, folder: str) -> Iterator[tuple[pafs.FileInfo, str]]:
        for info in self._list(folder, recursive=True):
            relative = info.path.removeprefix(folder).lstrip("/")
            if info.type == pafs.FileType.File and not any(part[:1] in {".", "_"} for part in relative.split("/")):
                yield info, relative

    def _list(self, folder: str, recursive: bool) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        try:
            infos: list[pafs.FileInfo] = self._filesystem.get_file_info(selector)
        except (OSError, pa.ArrowException) as error:
            raise UnreadableSourceError(f"listing {folder!r}", str(error), "Check access and network.") from error
        return infos

    def _is_data(self, relative: str) -> bool:
        name = relative.rpartition("/")[2]
        return "." not in name or has_suffix(name, self._suffixes)


def _glob_to_regex(pattern: str) -> str:
    pattern = f"{pattern}/*" if pattern.endswith("**") else pattern
    return "/".join(_part_to_regex(part) for part in pattern.split("/")).replace("(?:.*/)?/", "(?:.*/)?")


def _part_to_regex(part: str) -> str:
    if part == "**":
        return "(?:.*/)?"
    pieces = re.split(r"(\*|\?|\[!?\]?[^]]*\])", part)
    return "".join(_piece_to_regex(piece) for piece in pieces)


def _piece_to_regex(piece: str) -> str:
    if piece == "*":
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if len(piece) > 2 and piece[0] == "[" and piece[-1] == "]":
        inside = piece[1:-1].replace("\\", r"\\")
        return f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]"
    return re.escape(piece)

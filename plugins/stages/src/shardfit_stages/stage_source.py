"""Files in stages as rows: local ones as the core reads them, remote ones through obstore, kept on disk if need be."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import pyarrow as pa

from shardfit.errors import InvalidArgumentError, SourceNotFoundError
from shardfit.redaction import redact_url, redact_urls
from shardfit.source import DataSource, Fragment
from shardfit.sources.csv_files import CsvOpener
from shardfit.sources.file_source import FileOpener
from shardfit.sources.parquet import ParquetOpener
from shardfit_stages.catalogue import Catalogue, StageTarget
from shardfit_stages.openers import is_remote, resolve
from shardfit_stages.spool import SpoolSettings, close_spool, spool_of

_FORMATS: Mapping[str, type[FileOpener]] = {"parquet": ParquetOpener, "csv": CsvOpener}
_OF_PYARROW = {"filesystem", "storage_options"}


class SpooledSource(DataSource):
    """A source far away: where each row is read several times, workers keep what they have read on local disk.

    Args:
        inner: Reads; each of its reads checks that the data is still what was planned.
        names: What people call it.
        settings: Where rows are kept, and how many.
    """

    def __init__(self, inner: DataSource, names: Sequence[str], settings: SpoolSettings) -> None:
        self._inner = inner
        self._names = tuple(names)
        self._settings = settings
        self._run = ""
        self._passes = 1

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return self._inner.schema()

    def fragments(self) -> Sequence[Fragment]:
        """Return the fragments; their addresses are URLs."""
        return self._inner.fragments()

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment: from local disk if they were read before and fitted there."""
        wanted = tuple(columns)
        if not self._run:
            return self._inner.read(fragment, wanted, start, stop, batch_rows)
        try:
            spool = spool_of(self._run, self._settings)
        except OSError as error:
            asked = f"keeping rows of {self.describe()} in {os.fspath(self._settings.root)!r}"
            advice = "Set SHARDFIT_SPOOL_FOLDER to a folder that can be written, or SHARDFIT_SPOOL_BYTES to 0."
            raise InvalidArgumentError(asked, error.strerror or str(error), advice) from error
        key = repr((fragment.uri, fragment.index, fragment.version, fragment.position, wanted, start, stop, batch_rows))
        name = hashlib.sha256(key.encode()).hexdigest()
        return spool.read(name, stop - start, lambda: self._inner.read(fragment, wanted, start, stop, batch_rows))

    def describe(self) -> str:
        """Return the names."""
        return f"stage {redact_urls(self._names)}"

    def warnings(self) -> tuple[str, ...]:
        """Return those of the files, and what is kept on local disk."""
        return (*self._inner.warnings(), *self._about_spool())

    def for_passes(self, passes: int) -> DataSource:
        """Return the source that keeps what it reads, if it is read more than once."""
        if passes < 2 or self._settings.budget_bytes == 0:
            return self
        keeping = copy(self)
        keeping._run, keeping._passes = uuid.uuid4().hex, passes
        return keeping

    def for_cpus(self, cpus: int) -> DataSource:
        """Return the source whose files are read with so many CPUs."""
        source = copy(self)
        source._inner = self._inner.for_cpus(cpus)
        return source

    def close(self) -> None:
        """Remove what this process keeps."""
        if self._run:
            close_spool(self._run)
        self._inner.close()

    def _about_spool(self) -> tuple[str, ...]:
        if not self._run:
            return ()
        size = sum(fragment.bytes or 0 for fragment in self.fragments()) / 2**20
        budget = self._settings.budget_bytes
        most = "half of the free disk" if budget is None else f"{budget / 2**20:,.0f} MiB"
        where = "their folder of temporary files" if self._settings.folder is None else repr(self._settings.folder)
        return (
            f"{self.describe()} is read {self._passes} times: of its {size:,.0f} MiB each worker keeps its part in "
            f"{where}, {most} of a node at most; what does not fit is read again from the stage.",
        )


def open_files(paths: Sequence[str], options: Mapping[str, Any], catalogue: Catalogue | None) -> DataSource:
    """Return the source of files in a stage or at URLs; nothing is read yet.

    Args:
        paths: In one stage, or on one storage.
        options: `format` (`parquet` or `csv`; by the suffix if left out), and those of the source of that format.
        catalogue: Where stages are; None to look for one.

    Raises:
        InvalidArgumentError: A name cannot be read, or paths are on several storages.
        UnknownNameError: There is no such stage.
        SourceNotFoundError: The storage cannot be reached as the options say.
    """
    given = dict(options)
    opener = _FORMATS[given.pop("format", None) or _format_of(paths)]()
    targets = [resolve(path, catalogue) for path in paths]
    urls = [target.url for target in targets]
    if not any(map(is_remote, urls)):
        return opener.open([url.removeprefix("file://") for url in urls], given)
    settings = SpoolSettings(os.environ.get("SHARDFIT_SPOOL_FOLDER"), _budget(os.environ))
    catalogued = any(path.startswith("@") or target.options for path, target in zip(paths, targets, strict=True))
    if given.keys() & _OF_PYARROW or not (catalogued or _needs_obstore(urls)):
        # As without this plugin: pyarrow knows the storage, and was told what it needs.
        return SpooledSource(opener.open(urls, given), paths, settings)
    filesystem, places = _reach(paths, targets)
    return SpooledSource(opener.open(places, {**given, "filesystem": filesystem}), paths, settings)


def _reach(paths: Sequence[str], targets: Sequence[StageTarget]) -> tuple[Any, list[str]]:
    from shardfit_stages.remote_files import UnusableOptions, connect

    asked = f"opening {[redact_url(path) for path in paths[:3]]!r}"
    if len({(_storage(target.url), repr(sorted(target.options.items()))) for target in targets}) > 1:
        advice = "Make one connector for each and join them with DataConnector.from_sources."
        raise InvalidArgumentError(asked, "the files are on several storages", advice)
    try:
        reached = [connect(target.url, targets[0].options, os.environ) for target in targets]
    except UnusableOptions as error:
        raise SourceNotFoundError(asked, str(error), "Check the URL and the options of the stage.") from None
    return reached[0][0], [place for _, place in reached]


def _storage(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme.lower()}://{rest.partition('/')[0]}"


def _needs_obstore(urls: Sequence[str]) -> bool:
    return any(url.partition("://")[0].lower() in ("az", "azure") for url in urls)


def _format_of(paths: Sequence[str]) -> str:
    # The core's openers know their suffixes; a folder is one of Parquet files.
    return "csv" if CsvOpener().claims(list(paths)) else "parquet"


def _budget(environ: Mapping[str, str]) -> int | None:
    text = environ.get("SHARDFIT_SPOOL_BYTES", "")
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidArgumentError("reading SHARDFIT_SPOOL_BYTES", f"found {text!r}", "Write a number of bytes.")
    return int(text)

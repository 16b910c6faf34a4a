"""Several sources, one after another, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import pyarrow as pa

from shardfit.errors import SourceNotFoundError
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.schemas import check_same_columns, common_schema, conform, join_features, select_columns


class ConcatSource(DataSource):
    """Rows of several sources of one schema, in the order given.

    An address that occurs in more than one of them gets the source's number as a prefix.

    Args:
        sources: One or more; the columns of the first decide the order.

    Raises:
        SourceNotFoundError: `sources` is empty.
    """

    def __init__(self, sources: Sequence[DataSource]) -> None:
        if not sources:
            raise SourceNotFoundError("joining sources", "found none", "Pass one or more.")
        self._sources = tuple(sources)
        self._schema: pa.Schema | None = None

    def schema(self) -> pa.Schema:
        """Return the columns of the first source.

        Raises:
            SchemaMismatchError: Another source has other columns or types.
        """
        if self._schema is None:
            first, *others = self._sources
            schema = common_schema(first.schema())
            for other in others:
                check_same_columns(schema, common_schema(other.schema()), first.describe(), other.describe())
            self._schema = join_features([schema, *(other.schema() for other in others)])
        return self._schema

    def fragments(self) -> Sequence[Fragment]:
        """Return the fragments of each source in turn."""
        self.schema()
        listed = [tuple(source.fragments()) for source in self._sources]
        owners = Counter(uri for fragments in listed for uri in {fragment.uri for fragment in fragments})
        return tuple(
            _wrap(fragment, number, owners[fragment.uri] > 1)
            for number, fragments in enumerate(listed)
            for fragment in fragments
        )

    def read(
        self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of a fragment from the source that it belongs to."""
        number, inner = _unwrap(fragment)
        wanted = select_columns(self.schema(), tuple(columns))
        for batch in self._sources[number].read(inner, columns, start, stop, batch_rows):
            yield conform(batch, wanted)

    def describe(self) -> str:
        """Return what the sources are called."""
        names = [source.describe() for source in self._sources[:3]]
        more = f" and {len(self._sources) - 3} more" if len(self._sources) > 3 else ""
        return " + ".join(names) + more

    def in_memory(self) -> bool:
        """Return whether any of the sources is in memory."""
        return any(source.in_memory() for source in self._sources)

    def for_passes(self, passes: int) -> DataSource:
        """Return the sources, each for so many passes."""
        return ConcatSource([source.for_passes(passes) for source in self._sources])

    def for_cpus(self, cpus: int) -> DataSource:
        """Return the sources, each for so many CPUs."""
        joined = copy(self)
        joined._sources = tuple(source.for_cpus(cpus) for source in self._sources)
        return joined

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings of every source, each once."""
        return tuple(dict.fromkeys(warning for source in self._sources for warning in source.warnings()))


class ConcatOpener:
    """Opens a tuple or list of sources, which is what `DataConnector.from_sources` resolves to."""

    def claims(self, data: object) -> Claim | None:
        """Return a claim on a sequence of sources."""
        if isinstance(data, tuple | list) and data and all(isinstance(part, DataSource) for part in data):
            return Claim(10, "several sources")
        return None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the sources as one; it takes no options."""
        return ConcatSource(data if isinstance(data, tuple | list) else ())


def _wrap(fragment: Fragment, number: int, shared: bool) -> Fragment:
    uri = f"{number}:{fragment.uri}" if shared else fragment.uri
    return replace(fragment, uri=uri, position=(number, int(shared), *fragment.position))


def _unwrap(fragment: Fragment) -> tuple[int, Fragment]:
    number, shared, *position = fragment.position
    uri = fragment.uri.partition(":")[2] if shared else fragment.uri
    return number, replace(fragment, uri=uri, position=tuple(position))

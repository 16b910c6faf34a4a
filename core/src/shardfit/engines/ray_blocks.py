"""The blocks of a Ray dataset, read from Ray's own values; imports no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from shardfit.errors import DataError

Block = tuple[Any, int, int, int]


def blocks_of(dataset: Any, materialized: type) -> tuple[list[Block], pa.Schema | None]:
    """Return the blocks of a dataset, in order, and its Arrow schema, or None where blocks are pandas'.

    Args:
        dataset: Ray's.
        materialized: Ray's class of datasets whose rows stay the same.

    Raises:
        DataError: The dataset is lazy: its rows may differ each time that they are computed.
    """
    if not isinstance(dataset, materialized):
        raise DataError(
            "reading a Ray dataset", f"found a lazy one: {type(dataset).__name__}", "Pass dataset.materialize()."
        )
    found: Any = dataset
    blocks = [block for bundle in found.iter_internal_ref_bundles() for block in _blocks_of_bundle(bundle)]
    schema = getattr(found.schema(), "base_schema", None)
    return blocks, schema if isinstance(schema, pa.Schema) else None


def _blocks_of_bundle(bundle: Any) -> Iterator[Block]:
    """Yield Ray's reference to each block of a bundle, the number of its first row, how many rows, and its bytes."""
    parts = getattr(bundle, "slices", None) or [None] * len(bundle.blocks)
    for entry, part in zip(bundle.blocks, parts, strict=True):
        # Older versions of Ray have pairs here.
        reference, metadata = (entry.ref, entry.metadata) if hasattr(entry, "metadata") else entry
        start, stop = (0, metadata.num_rows) if part is None else (part.start_offset, part.end_offset)
        yield reference, start, stop - start, metadata.size_bytes

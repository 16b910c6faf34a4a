"""DataFrames of any library, as a source: anything that hands its columns over as Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from shardfit.errors import UnsupportedTypeError
from shardfit.source import Claim, DataSource
from shardfit.sources.arrow import ArrowSource


class DataFrameOpener:
    """Opens pandas and polars DataFrames, polars LazyFrames, DuckDB relations, and all with `__arrow_c_stream__`.

    The rows are brought into the driver's memory as one Arrow table, when the run starts: a lazy frame or a relation is
    computed then, once. A pandas index is dropped. Give a query an ORDER BY if its order matters: the rows are numbered
    in the order in which they come.
    """

    def claims(self, data: object) -> Claim | None:
        """Return a claim on whatever can be turned into Arrow; the last resort for what others do not know."""
        if isinstance(data, pa.Table | pa.RecordBatch):
            return None
        if _is(data, "pandas", "DataFrame") or _is(data, "polars", "LazyFrame") or _is(data, "polars", "DataFrame"):
            return Claim(10, "a DataFrame")
        if hasattr(data, "__arrow_c_stream__") and not isinstance(data, type):
            return Claim(1, "an object with __arrow_c_stream__")
        return None

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        """Return the rows as an in-memory source; it takes no options.

        Raises:
            UnsupportedTypeError: A column has no Arrow type, or the object is no table.
        """
        name = f"a {type(data).__module__.partition('.')[0]} {type(data).__name__}"
        try:
            return ArrowSource(_to_table(data), name)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
            raise UnsupportedTypeError(
                f"turning {name} into an Arrow table", str(error), "Give each column values of one type."
            ) from error


def _to_table(data: Any) -> pa.Table:
    if _is(data, "pandas", "DataFrame"):
        return pa.Table.from_pandas(data, preserve_index=False)
    if _is(data, "polars", "LazyFrame"):
        data = data.collect()
    if _is(data, "polars", "DataFrame"):
        return data.to_arrow()
    return pa.table(data)


def _is(data: object, library: str, name: str) -> bool:
    # By name, so that no DataFrame library is imported to find out; subclasses such as GeoDataFrame count.
    return any(base.__name__ == name and base.__module__.partition(".")[0] == library for base in type(data).__mro__)

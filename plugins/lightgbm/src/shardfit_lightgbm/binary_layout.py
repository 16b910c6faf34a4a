"""What LightGBM's binary file of a Dataset looks like, whatever its rows.

Which code stands for which value is not known here but asked of LightGBM, which writes a file of rows whose values lie
at and just above every cut point.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.errors import PluginError
from shardfit_lightgbm.bin_codes import CodeTable, Float32Array, table_bits

_TOKEN = b"______LightGBM_Binary_File_Token______\n\0"
_SIZE = struct.Struct("<Q")
# Number of rows, of those with weights, and of query groups, each in 8 bytes; labels come after them.
_METADATA = struct.Struct("<QQQ")
# Where the header has the number of features with several bins, of all features, and of each its place in the file.
_USED, _ALL, _PLACES = 8, 16, 80
# Of a feature: number of features in its group, number of bins, whether they are categories; and its bins.
_TOGETHER, _BINS, _CATEGORICAL, _BOUNDS = 24, 32, 64, 104
# So many that their size tells how wide a code is.
_LEAST_ROWS = 64
_WIDEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class BinaryColumn:
    """A feature in the file.

    Args:
        feature: Its number.
        head: What stands before its codes.
        bits: Of a code: 4, 8, 16 or 32.
        table: The codes of its values.
    """

    feature: int
    head: bytes
    bits: int
    table: CodeTable

    def size(self, rows: int) -> int:
        """Return how many bytes the codes of so many rows take."""
        return _aligned((rows * self.bits + 7) // 8)

    def write(self, values: Float32Array, out: npt.NDArray[np.uint8], row: int) -> None:
        """Write the codes of some values.

        Args:
            values: Contiguous; float32, shape [rows], one or more.
            out: The codes of all rows.
            row: Of the first value.
        """
        codes: Any = self.table.look_up(values)
        if self.bits == 4:
            # Two rows share a byte, the first of them in its lower half.
            if row % 2:
                out[row // 2] |= codes[0] << 4
                codes, row = codes[1:], row + 1
            codes = np.append(codes, np.zeros(len(codes) % 2, dtype=codes.dtype))
            codes = codes[::2] | (codes[1::2] << 4)
        first = row * self.bits // 8
        raw = codes.view(np.uint8)
        out[first : first + len(raw)] = raw


@dataclass(frozen=True, eq=False)
class BinaryLayout:
    """What the file of a Dataset looks like, whatever its rows.

    Args:
        header: With the number of rows left out.
        columns: The features that have several bins, in the order of the file.
    """

    header: bytes
    columns: tuple[BinaryColumn, ...]

    @classmethod
    def of(cls, reference: Any, params: dict[str, Any]) -> Self:
        """Return the layout of every Dataset that shares the bins of a reference.

        Args:
            reference: A Dataset of some rows.
            params: It was made with.

        Raises:
            PluginError: LightGBM writes another kind of file.
        """
        with tempfile.TemporaryDirectory(prefix="shardfit-") as folder:
            file = _File.of(reference, Path(folder) / "reference.bin")
            ends = [_ends(head) for head, _ in file.groups]
            rows = max([_LEAST_ROWS, *(2 * len(upper) + 1 for upper, _ in ends)])
            probe = np.zeros((rows, file.features), dtype=np.float32)
            for feature, (upper, lower) in zip(file.used, ends, strict=True):
                # The first and the last row of each interval; then a missing value.
                probe[: 2 * len(upper), feature] = np.append(upper, lower)
                probe[2 * len(upper) :, feature] = np.nan
            label = np.zeros(rows, dtype=np.float32)
            asked = lgb.Dataset(probe, label=label, params=dict(params), reference=reference).construct()
            answer = _File.of(asked, Path(folder) / "probe.bin")
        columns = [
            _column(feature, head, upper, codes, rows, table_bits(len(ends)))
            for feature, (upper, _), (head, codes) in zip(answer.used, ends, answer.groups, strict=True)
        ]
        return cls(answer.header, tuple(columns))

    def size(self, rows: int) -> int:
        """Return how many bytes the file of so many rows takes."""
        groups = sum(_SIZE.size + len(column.head) + column.size(rows) for column in self.columns)
        return len(self.header) + _SIZE.size + _METADATA.size + _aligned(4 * rows) + groups

    def begin(self, file: npt.NDArray[np.uint8], rows: int) -> list[npt.NDArray[np.uint8]]:
        """Write all but the rows; return where their codes go, of each of the columns.

        Args:
            file: As long as `size` says; zeros.
            rows: Number of rows.
        """
        end = 0

        def put(data: bytes) -> None:
            nonlocal end
            file[end : end + len(data)] = np.frombuffer(data, dtype=np.uint8)
            end += len(data)

        put(self.header)
        file[_start_of_header() :][:4] = np.frombuffer(struct.pack("<i", rows), dtype=np.uint8)
        put(_SIZE.pack(_METADATA.size + _aligned(4 * rows)))
        put(_METADATA.pack(rows, 0, 0))
        end += _aligned(4 * rows)
        places = []
        for column in self.columns:
            put(_SIZE.pack(len(column.head) + column.size(rows)))
            put(column.head)
            places.append(file[end : end + column.size(rows)])
            end += column.size(rows)
        return places


@dataclass(frozen=True, eq=False)
class _File:
    """A file that LightGBM wrote: its header, which features it has, and of each what stands before and in its rows."""

    header: bytes
    features: int
    used: tuple[int, ...]
    groups: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, data: Any, path: Path) -> Self:
        data.save_binary(path)
        content = path.read_bytes()
        if not content.startswith(_TOKEN):
            raise _unknown("it begins otherwise")
        sections = list(_sections(content, _start_of_header() - _SIZE.size))
        header = sections[0]
        features, used = (struct.unpack_from("<i", header, place)[0] for place in (_ALL, _USED))
        places = np.frombuffer(header, dtype=np.int32, count=features, offset=_PLACES)
        found = tuple(int(feature) for feature in np.flatnonzero(places >= 0))
        if len(found) != used or len(sections) != used + 2 or places[list(found)].tolist() != list(range(used)):
            raise _unknown(f"{len(sections)} parts for {used} of {features} features")
        groups = tuple(_split(group) for group in sections[2:])
        return cls(content[: _start_of_header() + len(header)], features, found, groups)


def _sections(content: bytes, start: int) -> Iterator[bytes]:
    while start < len(content):
        (size,) = _SIZE.unpack_from(content, start)
        start += _SIZE.size
        yield content[start : start + size]
        start += size


def _split(group: bytes) -> tuple[bytes, bytes]:
    several_values, own_layout, sparse = struct.unpack_from("<?7x?7x?7x", group)
    together, bins, categorical = (
        struct.unpack_from("<i", group, place)[0] for place in (_TOGETHER, _BINS, _CATEGORICAL)
    )
    if several_values or own_layout or sparse or together != 1:
        raise _unknown("features are not stored one by one and densely")
    end = _BOUNDS + (4 if categorical else 8) * bins
    return group[:end], group[end:]


def _ends(head: bytes) -> tuple[Float32Array, Float32Array]:
    """Return the last and the first value of each interval that may have a bin of its own; float32."""
    bins, categorical = (struct.unpack_from("<i", head, place)[0] for place in (_BINS, _CATEGORICAL))
    if categorical:
        categories = np.frombuffer(head, dtype=np.int32, count=bins, offset=_BOUNDS)
        values = np.arange(-1, categories.max(initial=0) + 2).astype(np.float32)
        return values, values
    bounds = np.frombuffer(head, dtype=np.float64, count=bins, offset=_BOUNDS)
    bounds = bounds[np.isfinite(bounds)]
    upper = bounds.astype(np.float32)
    upper = np.unique(np.where(upper > bounds, np.nextafter(upper, np.float32(-np.inf)), upper) + np.float32(0))
    if not len(upper):
        upper = np.zeros(1, dtype=np.float32)
    above = np.nextafter(upper, np.float32(np.inf))
    return np.append(upper, np.float32(_WIDEST)), np.append(np.float32(-_WIDEST), above)


def _column(feature: int, head: bytes, upper: Float32Array, raw: bytes, rows: int, bits_of_table: int) -> BinaryColumn:
    """Read what the probe became: codes of the last values of all intervals, of the first ones, of a missing value."""
    bits = next((bits for bits in (4, 8, 16, 32) if _aligned((rows * bits + 7) // 8) == len(raw)), None)
    if bits is None:
        raise _unknown(f"{len(raw)} bytes for {rows} rows")
    stored = np.frombuffer(raw, dtype=np.uint8)
    if bits == 4:
        codes: Any = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)
    else:
        codes = stored.view(f"<u{bits // 8}")
    intervals = len(upper)
    of_upper, of_lower = codes[:intervals], codes[intervals : 2 * intervals]
    if not np.array_equal(of_upper, of_lower):
        raise _unknown(f"values of feature {feature} have codes that do not follow its cut points")
    table = CodeTable.of(upper[:-1], of_upper.copy(), int(codes[2 * intervals]), bits_of_table)
    return BinaryColumn(feature, head, bits, table)


def _start_of_header() -> int:
    return len(_TOKEN) + _SIZE.size


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _unknown(found: str) -> PluginError:
    return PluginError(
        "reading how LightGBM stores bins",
        f"{found} (LightGBM {lgb.__version__})",
        "Install the version of LightGBM that shardfit-lightgbm names.",
    )

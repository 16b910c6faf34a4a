"""What files of text have in common: a fragment is a range of bytes, or a whole file that cannot be divided."""

from __future__ import annotations

import pyarrow as pa

# Where the range of a fragment ends whose file cannot be divided.
WHOLE_FILE = -1
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
SCAN_THREADS = 8
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def with_compressed(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return suffixes, and those that they have on compressed files."""
    return suffixes + tuple(text + packed for text in suffixes for packed in COMPRESSED)


def first_byte(handle: pa.NativeFile) -> int:
    """Return where the text of a file begins: after its byte order mark, if it has one."""
    return len(BYTE_ORDER_MARK) if handle.read_at(len(BYTE_ORDER_MARK), 0) == BYTE_ORDER_MARK else 0

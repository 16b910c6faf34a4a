"""Finding rows in the bytes of a CSV file, from any place in it, without knowing whether that place is quoted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np

_NEWLINE, _RETURN = 10, 13
_PIECE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """What stands in some bytes, on one assumption about whether they begin inside quotes.

    Args:
        count: Rows that start there; empty lines are none.
        starts: Offsets in the file of the first two of them, as far as there are.
        quoted_newline: Whether a value holds a newline.
        stray_quote: Whether a quote opens in the middle of a value, which a parser takes literally.
    """

    count: int = 0
    starts: tuple[int, ...] = ()
    quoted_newline: bool = False
    stray_quote: bool = False

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.count + other.count,
            (self.starts + other.starts)[:2],
            self.quoted_newline or other.quoted_newline,
            self.stray_quote or other.stray_quote,
        )


class BlockScan(NamedTuple):
    """What stands in some bytes, on either assumption; scans of neighbouring bytes add up.

    Args:
        quotes: Number of quotes.
        outside: The rows, if the bytes begin outside quotes.
        inside: The rows, if they begin inside quotes.
    """

    quotes: int = 0
    outside: Rows = Rows()
    inside: Rows = Rows()

    def rows(self, quotes_before: int) -> Rows:
        """Return the rows, given how many quotes stand before these bytes."""
        return self.inside if quotes_before % 2 else self.outside

    def followed_by(self, other: BlockScan) -> BlockScan:
        """Return the scan of these bytes and those of `other`, which come next."""
        return BlockScan(
            self.quotes + other.quotes,
            self.outside + other.rows(self.quotes),
            self.inside + other.rows(self.quotes + 1),
        )


def scan_bytes(data: bytes, offset: int, previous: int, delimiter: int, quote: int | None) -> BlockScan:
    """Return where rows start in `data`.

    Args:
        data: One byte or more.
        offset: Where in the file they begin.
        previous: The byte before them; a newline where there is none.
        delimiter: The byte between values.
        quote: The byte around values, or None.
    """
    content = np.frombuffer(data, dtype=np.uint8)
    newline = (content == _NEWLINE) | (content == _RETURN)
    after_newline = np.concatenate([[previous in (_NEWLINE, _RETURN)], newline[:-1]])
    starts = np.flatnonzero(after_newline & ~newline)
    quotes = np.flatnonzero(content == quote) if quote is not None else np.empty(0, dtype=np.int64)
    quoted = (np.searchsorted(quotes, starts) % 2).astype(bool)
    before = np.where(quotes > 0, content[quotes - 1], previous)
    stray = ~np.isin(before, [delimiter, _NEWLINE, _RETURN, quote if quote is not None else delimiter])

    def rows(inside: bool) -> Rows:
        mine = starts[quoted == inside]
        # Every second quote opens: the first one, if these bytes begin outside quotes.
        opens_stray = bool(stray[int(inside) :: 2].any())
        first = tuple(offset + int(start) for start in mine[:2])
        return Rows(len(mine), first, bool((quoted != inside).any()), opens_stray)

    return BlockScan(len(quotes), rows(inside=False), rows(inside=True))


def scan_range(
    read: Callable[[int, int], bytes], first: int, start: int, stop: int, delimiter: str, quote: str | None
) -> BlockScan:
    """Return where rows start in the bytes `start` to `stop` (exclusive) of a file.

    Args:
        read: Called with a number of bytes and an offset in the file.
        first: Where the text of the file begins.
        start: First byte, at or after `first`.
        stop: Byte after the last one.
        delimiter: The character between values.
        quote: The character around values, or None.
    """

    def pieces() -> Iterable[BlockScan]:
        previous = _NEWLINE if start == first else read(1, start - 1)[0]
        for place in range(start, stop, _PIECE_BYTES):
            data = read(min(_PIECE_BYTES, stop - place), place)
            if not data:
                return
            yield scan_bytes(data, place, previous, ord(delimiter), ord(quote) if quote else None)
            previous = data[-1]

    return reduce(BlockScan.followed_by, pieces(), BlockScan())

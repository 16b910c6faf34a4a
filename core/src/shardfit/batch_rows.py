"""How many rows are decoded at once."""

from __future__ import annotations

_BATCH_BYTES = 4 * 2**20
_FEWEST_BATCH_ROWS, _MOST_BATCH_ROWS = 2**12, 2**16


def batch_rows(columns: int) -> int:
    """Return how many rows to decode at once: about 4 MiB of 4-byte values.

    Args:
        columns: How many values a row has: columns that are decoded, and two for each value of a sparse column.
    """
    return min(max(_BATCH_BYTES // (4 * max(columns, 1)), _FEWEST_BATCH_ROWS), _MOST_BATCH_ROWS)


def even_rows(rows: int, most: int) -> int:
    """Return how many rows of a fragment to decode at once, so that no small rest is left: that would cost a batch.

    Args:
        rows: How many of them are read, 1 or more.
        most: About how many a batch should have, 1 or more.

    Returns:
        At most a quarter more than `most`, or `most` where that is less than 4.
    """
    batches = -(-rows // _most_at_once(most))
    return -(-rows // batches)


def most_even_rows(rows: int, most: int) -> int:
    """Return the most rows that `even_rows` gives for so many or fewer: fewer may be divided into larger batches.

    Args:
        rows: Most rows of a fragment, 0 or more.
        most: About how many a batch should have, 1 or more.
    """
    return min(rows, _most_at_once(most))


def _most_at_once(most: int) -> int:
    return most + most // 4

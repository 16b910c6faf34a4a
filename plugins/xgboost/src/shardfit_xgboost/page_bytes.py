"""How many bytes XGBoost 3.2 takes for bins, in memory and as a page on the disk."""

from __future__ import annotations


def bin_bytes(max_bin: int) -> int:
    """Return the bytes of one bin's number within its feature."""
    return 1 if max_bin <= 256 else 2


def matrix_bytes(rows: int, features: int, max_bin: int, *, gapless: bool) -> int:
    """Return the bytes of the bins by row and by column.

    Without missing values both take one byte a cell for up to 256 bins, else two; with missing values, those by row
    take four, and each row has an offset, and each cell a bit that says whether it is missing.

    Args:
        rows: Number of rows.
        features: Number of features.
        max_bin: Most bins of a feature.
        gapless: Whether no value is missing.
    """
    width = bin_bytes(max_bin)
    cells = rows * features
    return cells * width + cells * (width if gapless else 4) + rows * 8 + cells // 8


def sparse_matrix_bytes(rows: int, values: int) -> int:
    """Return the bytes of the bins of sparse features by row and by column.

    Args:
        rows: Number of rows.
        values: Number of values.
    """
    # Four bytes by row; by column a row number of eight and a bin of up to four.
    return 16 * values + 8 * rows


def page_bytes(rows: int, features: int, max_bin: int, *, gapless: bool) -> int:
    """Return the most bytes of a page on the disk: its bins, and the cut points and counts that each page carries.

    Args:
        rows: Rows of the page.
        features: Number of features.
        max_bin: Most bins of a feature.
        gapless: Whether no value is missing.
    """
    return matrix_bytes(rows, features, max_bin, gapless=gapless) + features * (8 * max_bin + 24) + 1024

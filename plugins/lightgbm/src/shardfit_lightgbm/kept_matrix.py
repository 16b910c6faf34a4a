"""A shard's matrix on the local disk: LightGBM's own binary files, and beside them what they do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from shardfit.engine import WorkerContext
from shardfit.errors import CacheError
from shardfit.matrix_reader import MatrixReader
from shardfit_lightgbm.config import LightGBMConfig
from shardfit_lightgbm.matrix import LibraryReference, ShardMatrix, empty_scores, set_scores, start_of

_PARTS = ("first", "data")
_COLUMNS = ("labels", "weights", "groups")
# Labels and weights twice, groups; and the head of each file, with its bins.
_ROW_BYTES = 24
_HEAD_BYTES = 2**16


def kept_bytes(config: LightGBMConfig, rows: int, features: int) -> int:
    """Return about how many bytes a matrix takes on the disk.

    Args:
        config: The trainer's configuration.
        rows: Of the matrix.
        features: Of the matrix.
    """
    width = 1 if config.max_bin <= 256 else 2
    return (width * features + _ROW_BYTES) * rows + (_HEAD_BYTES + 16 * config.max_bin * features)


def bins_depend_on(config: LightGBMConfig) -> Mapping[str, Any]:
    """Return what a Dataset depends on beside its rows and cut points: every parameter, and how labels are changed."""
    return {
        "params": config.params,
        "objective": config.objective.name,
        "has_missing": config.has_missing,
        "trains_as_two": config.trains_as_two,
    }


def keep(matrix: ShardMatrix, folder: Path) -> None:
    """Write a matrix, without the scores that its rows start from: those are others in each attempt.

    Args:
        matrix: What `ingest` returned.
        folder: Empty.

    Raises:
        CacheError: LightGBM cannot write it.
    """
    with _explained(f"keeping bins in {folder}"):
        for name in _PARTS:
            if (part := getattr(matrix, name)) is not None:
                part.save_binary(folder / f"{name}.bin")
        for name in _COLUMNS:
            if (column := getattr(matrix, name)) is not None:
                np.save(folder / f"{name}.npy", column, allow_pickle=False)


def take_kept(
    context: WorkerContext, folder: Path, reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig
) -> ShardMatrix:
    """Return the matrix that `keep` wrote, with the scores that rows start from now.

    Rows are read where those scores come from them: from an earlier model or from a column.

    Args:
        context: This worker.
        folder: Where it was written.
        reader: Yields the rows.
        reference: The same bins.
        config: Completed with the profile.

    Raises:
        CacheError: LightGBM does not take it.
    """
    params = {"num_threads": context.slot.cpus, **reference.params}
    with _explained(f"taking up the bins in {folder}"):
        # With the reference, LightGBM takes all rows of a file, whoever its peers are.
        first, data = (
            lgb.Dataset(path, params=dict(params), reference=reference.data).construct() if path.exists() else None
            for path in (folder / f"{name}.bin" for name in _PARTS)
        )
        labels: Any = np.load(folder / "labels.npy", allow_pickle=False)
        weights, groups = (
            np.load(path, allow_pickle=False) if path.exists() else None
            for path in (folder / f"{name}.npy" for name in _COLUMNS[1:])
        )
    row_ids = None if config.bagging is None else _row_ids(reader)
    matrix = ShardMatrix(data, first, row_ids, labels, weights, groups)
    if (scores := empty_scores(reader, reference, config)) is not None:
        _fill(scores, reader, reference, config)
        first_rows = 0 if first is None else int(first.num_data())
        for part, rows in ((first, slice(0, first_rows)), (data, slice(first_rows, None))):
            if part is not None:
                set_scores(part, scores[rows])
    return matrix


def _fill(
    scores: npt.NDArray[np.float64], reader: MatrixReader, reference: LibraryReference, config: LightGBMConfig
) -> None:
    if reference.earlier is None and not reader.spec.roles.base_margin:
        scores[:] = config.initial_scores or 0.0
        return
    done = 0
    with closing(reader.batches(by_columns=True)) as batches:
        for batch in batches:
            rows = len(batch.row_ids)
            scores[done : done + rows] = start_of(batch, reference, config)
            done += rows


def _row_ids(reader: MatrixReader) -> npt.NDArray[np.int64]:
    pieces = [np.arange(piece.first_row, piece.first_row + piece.rows) for piece in reader.shard.shard.slices]
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces])


@contextmanager
def _explained(asked: str) -> Iterator[None]:
    try:
        yield
    except (lgb.basic.LightGBMError, OSError, EOFError, ValueError) as error:
        raise CacheError(asked, str(error)) from error

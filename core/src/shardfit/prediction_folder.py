"""A folder of predictions: one Parquet file a worker, all of them there or none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from shardfit.errors import ArtifactError, ArtifactExistsError

COLUMN = "prediction"


@dataclass(frozen=True, slots=True)
class PredictionFolder:
    """Where predictions are written. Workers write beside the final names; the driver moves the files at the end.

    Args:
        address: A path or URL that every worker can reach.
        token: Distinguishes this writing from any other.
    """

    address: str
    token: str

    def write(self, rank: int, predictions: Iterable[pa.Array]) -> int:
        """Write one worker's predictions and return how many there are. Called on every worker.

        Raises:
            ArtifactError: The folder is full or cannot be written.
        """
        import pyarrow.parquet as pq

        filesystem, folder = self._open()
        rows, writer = 0, None
        try:
            filesystem.create_dir(self._staging(folder), recursive=True)
            for array in predictions:
                batch = pa.record_batch([array], names=[COLUMN])
                writer = writer or pq.ParquetWriter(self._staged(folder, rank), batch.schema, filesystem=filesystem)
                writer.write_batch(batch)
                rows += len(array)
        except OSError as error:
            raise ArtifactError(f"writing predictions to {self.address!r}", str(error)) from error
        finally:
            if writer is not None:
                writer.close()
        return rows

    def check_new(self) -> None:
        """Check that nothing is there yet. Called on the driver, before any worker starts.

        Raises:
            ArtifactExistsError: The folder exists and is not empty.
        """
        filesystem, folder = self._open()
        found = filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        if found:
            raise ArtifactExistsError(
                f"writing predictions to {self.address!r}",
                f"found {found[0].base_name!r} there",
                "Choose a new or empty folder.",
            )

    def publish(self, workers: int) -> None:
        """Move every worker's file to its final name. Called once, on the driver.

        Raises:
            ArtifactError: A worker's file is not where the driver looks for it.
        """
        filesystem, folder = self._open()
        try:
            for rank in range(workers):
                filesystem.move(self._staged(folder, rank), f"{folder}/part-{rank:05d}.parquet")
        except OSError as error:
            raise ArtifactError(
                f"publishing predictions in {self.address!r}",
                str(error),
                "Every worker and the driver must reach the same folder; use a shared path or a URL.",
            ) from error
        self.discard()

    def discard(self) -> None:
        """Remove what was not published. Called on the driver; nothing there is no error."""
        filesystem, folder = self._open()
        if filesystem.get_file_info(self._staging(folder)).type != pafs.FileType.NotFound:
            filesystem.delete_dir(self._staging(folder))

    def _open(self) -> tuple[pafs.FileSystem, str]:
        if "://" in self.address:
            filesystem, folder = pafs.FileSystem.from_uri(self.address)
            return filesystem, folder.rstrip("/")
        return pafs.LocalFileSystem(), self.address.rstrip("/")

    def _staging(self, folder: str) -> str:
        return f"{folder}/.writing-{self.token}"

    def _staged(self, folder: str, rank: int) -> str:
        return f"{self._staging(folder)}/part-{rank:05d}.parquet"

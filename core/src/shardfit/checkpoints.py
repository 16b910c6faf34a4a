"""Reading back the checkpoints that runs have stored."""

from __future__ import annotations

from shardfit.artifacts import ArtifactStore
from shardfit.trainer import Checkpoint


def load_checkpoint(store: ArtifactStore, artifact: str) -> Checkpoint:
    """Return the checkpoint under an identifier: of a checkpoint, a finished model, or a run (its newest checkpoint).

    Args:
        store: Where it is kept.
        artifact: Identifier, or the id of a run; of a run without a checkpoint, its model.

    Raises:
        ArtifactNotFoundError: Nothing is there.
        ArtifactCorruptError: A file is torn or altered.
    """
    if "/" not in artifact:
        found = _checkpoints(store, artifact)
        artifact = found[-1] if found else f"model/{artifact}"
    manifest = store.manifest(artifact)
    files = {stored.name: store.read(artifact, stored.name) for stored in manifest.files}
    step = int(manifest.metadata.get("step", 0))
    history = manifest.metadata.get("history", {})
    # JSON has turned the numbers of the rounds into text, and values that it has no number for.
    metrics = {
        name: {int(number): float(value) for number, value in values.items()} for name, values in history.items()
    }
    return Checkpoint(step, files, metrics)


def newest_checkpoint(store: ArtifactStore, run_id: str) -> Checkpoint | None:
    """Return the newest checkpoint of a run, or None where it has left none.

    Args:
        store: Where it is kept.
        run_id: Of the run.
    """
    found = _checkpoints(store, run_id)
    return load_checkpoint(store, found[-1]) if found else None


def delete_older(store: ArtifactStore, artifact: str) -> None:
    """Remove the checkpoints that the run has left before this one, those of earlier drivers among them.

    Args:
        store: Where they are kept.
        artifact: Identifier of a checkpoint of a run.

    Raises:
        ArtifactError: The store does not let one go.
    """
    older = _checkpoints(store, artifact.split("/")[1])
    for other in older[: older.index(artifact)] if artifact in older else ():
        store.delete(other)


def _checkpoints(store: ArtifactStore, run_id: str) -> list[str]:
    return sorted(store.list(f"run/{run_id}/checkpoint-"), key=_checkpoint_order)


def _checkpoint_order(artifact: str) -> tuple[int, ...]:
    return tuple(int(part) for part in artifact.rsplit("checkpoint-", 1)[1].split("-"))

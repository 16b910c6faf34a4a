"""What a loop knows of its run, and what it can tell it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from shardfit.engine import WorkerContext
from shardfit.errors import InvalidArgumentError
from shardfit_pytorch.checkpoints import Checkpoints, Optimizers, RestoredState
from shardfit_pytorch.config import check_hyper_params
from shardfit_pytorch.dataset_tracker import DatasetTracker
from shardfit_pytorch.ddp import data_parallel
from shardfit_pytorch.outbox import Outbox
from shardfit_pytorch.rendezvous import Meeting


@dataclass(frozen=True)
class RunParts:
    """What a context is made of.

    Args:
        worker: The engine's context.
        meeting: Where workers meet, and who they are.
        hyper_params: Of the run.
        datasets: Name -> connector.
        model_dir: This rank's own folder.
        outbox: Sends what the loop reports.
        tracker: Knows what the loop has read.
        checkpoints: Saves and loads.
    """

    worker: WorkerContext
    meeting: Meeting
    hyper_params: Mapping[str, Any]
    datasets: Mapping[str, Any]
    model_dir: Path
    outbox: Outbox
    tracker: DatasetTracker
    checkpoints: Checkpoints


class MetricsReporter:
    """Sends metrics to the driver; those of rank 0 are kept, so every rank may report.

    Args:
        worker: The engine's context.
        outbox: Sends them while the loop goes on.
    """

    def __init__(self, worker: WorkerContext, outbox: Outbox) -> None:
        self._worker, self._outbox = worker, outbox
        self._step = -1

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Report metrics of a step.

        Args:
            metrics: Name -> value; tensors of one element will do.
            step: Of an epoch, or of whatever the loop counts; one more than the last if None.

        Raises:
            InvalidArgumentError: A value is no number.
        """
        self._step = self._step + 1 if step is None else int(step)
        number, values = self._step, {str(name): _number(name, value) for name, value in metrics.items()}
        if self._worker.rank == 0:
            self._outbox.send(lambda: self._worker.report(number, values))


class ArtifactManager:
    """Adds files to what is published with the model; those of rank 0 count.

    Args:
        directory: The model directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, name: str, content: bytes | str | Path) -> None:
        """Add a file.

        Args:
            name: Relative to the model directory, with `/` between folders.
            content: What it holds: bytes or text, or the path of a file to copy.

        Raises:
            InvalidArgumentError: The name leads out of the directory.
        """
        target = (self._directory / name).resolve()
        if not target.is_relative_to(self._directory.resolve()) or target == self._directory.resolve():
            raise InvalidArgumentError("saving an artifact", f"found the name {name!r}", "Use a name below the folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)


class TrainingContext:
    """A rank's view of its run. Made by the trainer; `get_context()` returns it inside the loop.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._worker = parts.worker
        self._reporter = MetricsReporter(parts.worker, parts.outbox)

    def get_rank(self) -> int:
        """Return this worker's number, 0 to the world size - 1."""
        return self._worker.rank

    def get_local_rank(self) -> int:
        """Return this worker's number among those of its node."""
        return self._parts.meeting.local_rank(self._worker.rank)

    def get_world_size(self) -> int:
        """Return the number of workers."""
        return self._worker.world_size

    def get_local_world_size(self) -> int:
        """Return the number of workers of this node."""
        return self._parts.meeting.local_world_size(self._worker.rank)

    def get_node_rank(self) -> int:
        """Return the number of this worker's node."""
        return self._parts.meeting.node_rank(self._worker.rank)

    def get_master_addr(self) -> str:
        """Return the address of the store that workers meet at."""
        return self._parts.meeting.address

    def get_master_port(self) -> int:
        """Return the port of that store."""
        return self._parts.meeting.port

    def get_default_backend(self) -> str:
        """Return `nccl` where workers have GPUs, else `gloo`."""
        return "nccl" if self._worker.slot.gpus else "gloo"

    def get_supported_backends(self) -> list[str]:
        """Return the backends that this PyTorch has and this run can use."""
        found = ["gloo"] if dist.is_gloo_available() else []
        return [*found, "nccl"] if self._worker.slot.gpus and dist.is_nccl_available() else found

    def get_device(self) -> torch.device:
        """Return the GPU of this rank, or the CPU."""
        gpus = self._worker.slot.gpus
        return torch.device("cuda", self.get_local_rank() * gpus) if gpus else torch.device("cpu")

    def get_hyper_params(self) -> dict[str, Any]:
        """Return a copy of the run's hyper-parameters."""
        return check_hyper_params(self._parts.hyper_params)

    def get_dataset_map(self) -> dict[str, Any]:
        """Return the run's datasets by name; of a sharded one, `get_shard()` gives this rank's rows."""
        return dict(self._parts.datasets)

    def get_model_dir(self) -> str:
        """Return a folder of this rank's own; what rank 0 leaves in it is published when the run ends well."""
        return str(self._parts.model_dir)

    def get_metrics_reporter(self) -> MetricsReporter:
        """Return what sends metrics to the driver."""
        return self._reporter

    def get_artifact_manager(self) -> ArtifactManager:
        """Return what adds files beside the model."""
        return ArtifactManager(self._parts.model_dir)

    def should_stop(self) -> bool:
        """Return whether the run was asked to stop. Ranks may learn of it in different steps."""
        self._parts.outbox.check()
        return self._worker.should_stop()

    def init_process_group(self, backend: str | None = None) -> None:
        """Make the process group of the loop, unless there is one; `dist.init_process_group` does as well.

        Args:
            backend: `get_default_backend()` if None.
        """
        if not dist.is_initialized():
            dist.init_process_group(backend=backend or self.get_default_backend())

    def prepare_model(self, model: torch.nn.Module, **options: Any) -> torch.nn.parallel.DistributedDataParallel:
        """Return the model on this rank's device, in `DistributedDataParallel`, with gradients weighed by rows.

        They equal those of one process on the whole step, for losses that are means over rows.

        Args:
            model: The same on every rank.
            **options: Passed to `DistributedDataParallel`.
        """
        self.init_process_group()
        return data_parallel(model, self._parts.tracker.step_rows, self.get_device(), **options)

    def save_checkpoint(
        self,
        model: torch.nn.Module | None = None,
        optimizer: Optimizers = None,
        *,
        step: int | None = None,
        extra: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> int:
        """Save the state of the loop, with the positions of its datasets, and go on; returns the number of the step.

        The state is copied to memory now, and written and sent to the stage meanwhile. Call it on every rank, after
        the optimizer's step. Of `DistributedDataParallel`, rank 0's is written; of `fully_shard`, every rank's part.
        A checkpoint whose turn has not come when the next is saved is dropped.

        Args:
            model: Its parameters and buffers are saved.
            optimizer: One or several; needs the model.
            step: A number that grows; one more than the last if None.
            extra: Any JSON values, such as the state of a learning rate's schedule.
            wait: Whether to wait until it is sent.

        Raises:
            InvalidArgumentError: The step does not grow, or `extra` is no JSON.
        """
        checked = check_hyper_params(extra or {}, "extra")
        return self._parts.checkpoints.save(model, optimizer, step, checked, wait)

    def load_checkpoint(
        self, model: torch.nn.Module | None = None, optimizer: Optimizers = None
    ) -> RestoredState | None:
        """Load what this run goes on from, into the model and the optimizer, and let datasets go on where they were.

        Call it on every rank, before the first batch.

        Args:
            model: Built as it was when it was saved; wrapped or sharded over any number of ranks.
            optimizer: As for `save_checkpoint`.

        Returns:
            What else was saved, or None where the run starts from the beginning.
        """
        return self._parts.checkpoints.load(model, optimizer)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"reporting metric {name!r}", f"found {value!r:.200}", "A metric is one number."
        ) from error

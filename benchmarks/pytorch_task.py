"""The network, the loop and the batch size that every PyTorch contestant has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.task import Stopwatch, Task

# Not for all: who only starts processes that train leaves it to them to import PyTorch.
if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH_ROWS = 1024  # Of each rank.
# Of each process that trains: a network this small gains nothing from a second one, which waits more than it computes.
THREADS = 1
FEATURES = [f"f{column:02d}" for column in range(28)]
Batches: TypeAlias = "Iterable[tuple[torch.Tensor, torch.Tensor]]"


def network() -> nn.Module:
    """Return the untrained network, the same for all."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(28, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))


def train_epochs(model: nn.Module, batches: Callable[[], Batches], epochs: int) -> dict[str, float]:
    """Train, and return the seconds that the loop waited for batches, `data`, and those of all else, `train`.

    Args:
        model: Trained in place; wrapped or not.
        batches: Called for each epoch; gives features of shape [rows, 28] and labels of shape [rows].
        epochs: How many.
    """
    import torch
    from torch import nn

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.BCEWithLogitsLoss()
    began, waited = time.perf_counter(), 0.0
    for _ in range(epochs):
        asked = time.perf_counter()
        for features, label in batches():
            waited += time.perf_counter() - asked
            optimizer.zero_grad()
            loss_of(model(features).squeeze(-1), label).backward()
            optimizer.step()
            asked = time.perf_counter()
        waited += time.perf_counter() - asked
    return {"data": waited, "train": time.perf_counter() - began - waited}


def save(model: nn.Module, path: Path, seconds: dict[str, float]) -> None:
    """Save the weights, and beside them the seconds of the loop."""
    import torch

    torch.save(model.state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps(seconds))


def finish(task: Task, watch: Stopwatch, saved: Path) -> None:
    """Report: the phases of the loop apart from what it took to start and end it."""
    seconds: dict[str, float] = json.loads(saved.with_suffix(".json").read_text())
    watch.lap("rest")
    watch.phases["start"] += watch.phases.pop("run", 0.0) + watch.phases.pop("rest") - sum(seconds.values())
    watch.phases.update(seconds)
    if saved != task.model:
        task.model.write_bytes(saved.read_bytes())
    watch.report()


def scores(model: Path, rows: Any) -> Any:
    """Return what a saved network says of rows, float32, shape [rows, 28]."""
    import torch

    trained = network()
    trained.load_state_dict(torch.load(model, weights_only=True))
    with torch.no_grad():
        return trained(torch.tensor(rows)).squeeze(-1).numpy()

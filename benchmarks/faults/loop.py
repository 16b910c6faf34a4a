"""The PyTorch loop of the campaign: goes on in the middle of an epoch, and proves which rows each epoch had."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.faults.cases import CHECKPOINT_EVERY, FEATURES, ROUNDS, ROWS
from benchmarks.faults.holds import wait_for
from shardfit import TrainResult

_NAMES = tuple(f"f{number}" for number in range(FEATURES))
# Faults and checkpoints must fall within an epoch.
_STEPS_OF_EPOCH = 12
_EPOCHS = ROUNDS // _STEPS_OF_EPOCH
_SLOW_SECONDS = 0.1


def train_network(context: Any) -> None:
    """Train for `ROUNDS` steps; one step is a round.

    Hyper-parameters: `held`, the step after which to hold until the file `until` is there; or None to take every step
    slowly until then.
    """
    given = context.get_hyper_params()
    torch.manual_seed(0)
    model = context.prepare_model(nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    shard = context.get_dataset_map()["train"].get_shard()
    dataset = shard.to_torch_dataset(global_batch_size=ROWS // _STEPS_OF_EPOCH, shuffle=True)
    restored = context.load_checkpoint(model, optimizer)
    step, rows, loss = 0, [[0, 0, 0]] * _EPOCHS, 0.0
    if restored:
        step, rows, loss = (restored.extra[name] for name in ("step", "rows", "loss"))
    for epoch in range(restored.position.epoch if restored else 0, _EPOCHS):
        for batch in dataset:
            loss, found = _take(model, optimizer, batch)
            rows[epoch] = [known + new for known, new in zip(rows[epoch], found, strict=True)]
            if (step + 1) % CHECKPOINT_EVERY == 0:
                extra = {"step": step + 1, "rows": rows, "loss": loss}
                # One that is not waited for may be dropped, and the campaign strikes while a certain one is written.
                context.save_checkpoint(model, optimizer, step=step + 1, extra=extra, wait=True)
            context.get_metrics_reporter().log_metrics({"loss": loss}, step=step)
            _hold(given, step)
            step += 1
    if context.get_rank() == 0:
        torch.save(model.module.state_dict(), Path(context.get_model_dir(), "model.pt"))
        context.get_artifact_manager().save("told.json", json.dumps({"rows": rows, "loss": loss, "steps": step}))


def _take(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> tuple[float, list[int]]:
    """Take a step; return the loss of the global batch, and number and digests of its rows."""
    features = torch.stack([batch[name] for name in _NAMES], dim=1)
    label = batch["label"].float()
    loss = nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(-1), label)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    found = torch.tensor([len(label), *(_digest(batch[name].numpy()) for name in _NAMES[:2])])
    total = loss.detach().double() * len(label)
    dist.all_reduce(found)
    dist.all_reduce(total)
    return float(total / found[0]), [int(value) for value in found]


def _digest(values: np.ndarray[Any, np.dtype[np.float32]]) -> int:
    # Exact whatever the order, unlike a sum of floats: a row that is missing, or there twice, changes it.
    return int(values.view(np.int32).astype(np.int64).sum())


def _hold(given: dict[str, Any], step: int) -> None:
    if "until" not in given:
        return
    if given["held"] == step:
        wait_for(Path(given["until"]))
    elif given["held"] is None and not Path(given["until"]).exists():
        time.sleep(_SLOW_SECONDS)


def rows_of_epochs(table: pa.Table) -> list[list[int]]:
    """Return number and digests of the rows that each epoch must have had.

    Args:
        table: The training data.
    """
    return [[len(table), *(_digest(table[name].to_numpy()) for name in _NAMES[:2])]] * _EPOCHS


def network_of(result: TrainResult) -> dict[str, Any]:
    """Return what a run has left: weights, last loss, steps, the rows of each epoch, whether shardfit proved them."""
    folder = Path(result.get_model_dir())
    weights = torch.load(folder / "model.pt", weights_only=True)
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return {
        **told,
        "weights": {name: value.tolist() for name, value in weights.items()},
        # An attempt that begins where the last epoch ends takes no row of its own.
        "covered": all(part.exact for part in result.coverage.values()),
    }

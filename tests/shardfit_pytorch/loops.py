"""Loops that tests run on workers, which import them from here; and a table for them."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from shardfit import ShardedDataConnector
from shardfit_pytorch import PyTorchDistributor, PyTorchDistributorResult, PyTorchScalingConfig, get_context

FEATURES = ("area", "rooms", "age")


def houses(rows: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    area, rooms, age = random.uniform(0, 1, rows), random.integers(1, 7, rows), random.uniform(0, 1, rows)
    price = 2.5 * area + 0.2 * rooms - 0.8 * age + random.normal(0, 0.1, rows)
    return pa.table({"number": np.arange(rows), "area": area, "rooms": rooms, "age": age, "price": price})


def sharded(rows: int, **options: Any) -> ShardedDataConnector:
    return ShardedDataConnector.from_dataframe(houses(rows), **options)


def run(
    loop: Any, ranks: int, stage: Path, dataset_map: Any = None, hyper_params: Any = None, **options: Any
) -> PyTorchDistributorResult:
    """Run a loop in this process for one rank, else on as many nodes as there are ranks."""
    scaling = PyTorchScalingConfig(num_nodes=ranks)
    return PyTorchDistributor(loop, scaling, **options).run(dataset_map, hyper_params, str(stage))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(len(FEATURES), 8), nn.Tanh(), nn.Linear(8, 1))


def inputs(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.cat([batch[name].T for name in FEATURES], dim=1).float()
    return features, batch["price"].T.float()


def seed_style() -> None:
    """The program of the README: nothing but `get_context` and plain PyTorch."""
    context = get_context()
    dist.init_process_group(backend="gloo")
    dataset_map, hyper_params = context.get_dataset_map(), context.get_hyper_params()
    torch_dataset = dataset_map["train"].get_shard().to_torch_dataset(batch_size=1024)
    data_loader = DataLoader(torch_dataset)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=hyper_params["learning_rate"])
    loss = torch.zeros(())
    for epoch in range(hyper_params["epochs"]):
        for batch_dict in data_loader:
            features, label = inputs(batch_dict)
            loss = nn.functional.mse_loss(model(features), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        context.get_metrics_reporter().log_metrics({"loss": loss.item()}, step=epoch)
    if context.get_rank() == 0:
        torch.save(model.module.state_dict(), os.path.join(context.get_model_dir(), "model.pt"))  # noqa: PTH118 - as users write it
    dist.destroy_process_group()


def tell(context: Any) -> None:
    """Leave what the context says, of every rank, in the model directory of rank 0."""
    context.init_process_group()
    told = {
        name: getattr(context, f"get_{name}")()
        for name in (
            *("rank", "local_rank", "world_size", "local_world_size", "node_rank", "master_addr", "master_port"),
            *("default_backend", "supported_backends", "hyper_params"),
        )
    }
    told["environment"] = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")}
    told["datasets"] = {
        name: len(each.get_shard().to_arrow()) if name == "train" else each.count_rows()
        for name, each in context.get_dataset_map().items()
    }
    told["stop"] = context.should_stop()
    everyone: list[Any] = [None] * context.get_world_size()
    dist.all_gather_object(everyone, told)
    context.get_artifact_manager().save("told/everyone.json", json.dumps(everyone))
    Path(context.get_model_dir(), f"rank-{context.get_rank()}.txt").write_text("here")


def exact(context: Any) -> None:
    """Train with prepared gradients and checkpoints; keep which rows each step had.

    Hyper-parameters: epochs, global_batch_size, checkpoint_every (steps), loader_workers; `die_at` (a step of the run),
    `die_rank` and `once` (a file that is made first) for a rank that is killed.
    """
    given = context.get_hyper_params()
    model = context.prepare_model(network())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    dataset = (
        context.get_dataset_map()["train"]
        .get_shard()
        .to_torch_dataset(global_batch_size=given["global_batch_size"], shuffle=given.get("shuffle", True))
    )
    restored = context.load_checkpoint(model, optimizer)
    first = restored.position.epoch if restored else 0
    step = restored.extra["step"] if restored else 0
    seen = Path(given["seen"]) if "seen" in given else None
    for epoch in range(first, given["epochs"]):
        for batch in DataLoader(dataset, num_workers=given.get("loader_workers", 0)):
            features, label = inputs(batch)
            if seen is not None:
                name = f"{epoch}-{step}-{context.get_world_size()}-{context.get_rank()}.npy"
                np.save(seen / name, batch["number"].numpy().reshape(-1))
            loss = nn.functional.mse_loss(model(features), label)
            optimizer.zero_grad()
            loss.backward()
            if step == 0 and context.get_rank() == 0:
                gradients = {name: parameter.grad for name, parameter in model.module.named_parameters()}
                torch.save(gradients, Path(context.get_model_dir(), "gradients.pt"))
            optimizer.step()
            step += 1
            if step % given.get("checkpoint_every", 10**9) == 0:
                context.save_checkpoint(model, optimizer, step=step, extra={"step": step}, wait=given.get("wait", True))
            _die(context, given, step)
    loss = full_loss(model.module, context)
    context.get_metrics_reporter().log_metrics({"loss": loss, "steps": step})
    if context.get_rank() == 0:
        torch.save(model.module.state_dict(), Path(context.get_model_dir(), "model.pt"))


def full_loss(model: nn.Module, context: Any) -> float:
    (batch,) = context.get_dataset_map()["all"].to_torch_dataset(batch_size=10**6)
    features = torch.stack([batch[name] for name in FEATURES], dim=1).float()
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(features)[:, 0], batch["price"].float()))


def _die(context: Any, given: dict[str, Any], step: int) -> None:
    if step != given.get("die_at") or context.get_rank() != given["die_rank"]:
        return
    try:
        Path(given["once"]).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def misbehave(context: Any) -> None:
    """One rank does `what` while the others go on with their collectives."""
    given = context.get_hyper_params()
    mine = context.get_rank() == given["rank"]
    if given["what"] == "leaves before the group is made" and mine:
        return
    if given["what"] == "raises before the group is made" and mine:
        raise KeyError("no such thing")
    context.init_process_group("gloo")
    for step in range(50):
        if mine and step == 20:
            if given["what"] == "returns":
                return
            if given["what"] == "raises":
                raise ValueError(f"rank {context.get_rank()} has seen enough")
            if given["what"] == "exits":
                sys.exit(3)
            if given["what"] == "sleeps":
                time.sleep(3600)
        dist.all_reduce(torch.ones(4))


def breaks_early(context: Any) -> None:
    """One rank takes fewer batches; nothing makes the others wait for it."""
    for number, _ in enumerate(DataLoader(context.get_dataset_map()["train"].get_shard().to_torch_dataset(10))):
        if context.get_rank() == 1 and number == 2:
            break


def holds_a_lock() -> Any:
    lock = threading.Lock()

    def loop() -> None:
        with lock:
            pass

    return loop


def metric_only() -> None:
    get_context().get_metrics_reporter().log_metrics({"answer": 42})


def sharded_model(context: Any) -> None:
    """FSDP2 on the same rows on every rank, so that any number of ranks takes the steps of one process."""
    context.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (context.get_world_size(),))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    restored = context.load_checkpoint(model, optimizer)
    first = restored.step if restored else 0
    for step in range(first, first + 2):
        torch.manual_seed(step)
        loss = model(torch.randn(8, 5)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context.save_checkpoint(model, optimizer, step=first + 2, wait=True)
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if context.get_rank() == 0:
        torch.save(whole, Path(context.get_model_dir(), "model.pt"))


def sums(context: Any) -> None:
    """Sums of whole numbers, which are the same however they are divided: what the trainer kit asks can be exact."""
    context.init_process_group()
    given = context.get_hyper_params()
    restored = context.load_checkpoint()
    found = restored.extra if restored else {"epochs": 0, "sums": {}}
    for epoch in range(found["epochs"], given["epochs"]):
        for name, connector in sorted(context.get_dataset_map().items()):
            shard = connector.get_shard()
            if (
                shard.data.table.fragments
                and sum(f.rows for f in shard.data.table.fragments) < context.get_world_size()
            ):
                continue
            total = torch.zeros(1, dtype=torch.int64)
            for batch in shard.to_torch_dataset(100, columns=["delay"]):
                total += (batch["delay"] * 1000).round().long().sum()
            dist.all_reduce(total)
            found["sums"][name] = found["sums"].get(name, 0) + int(total) * (epoch + 1)
        found["epochs"] = epoch + 1
        context.get_metrics_reporter().log_metrics({"train-sum": found["sums"]["train"]}, step=epoch)
        context.save_checkpoint(step=epoch + 1, extra=found)
    found["sums"].pop("few", None)
    context.get_artifact_manager().save("sums.json", json.dumps(found))

"""The flights in PyTorch: a small network on columns and categories, beside the XGBoost of the other demo.

python -m examples.flights.pytorch
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import nn

from examples.flights import show
from examples.flights.__main__ import HELD_OUT_MONTH, timed
from examples.flights.data import CATEGORICAL, FEATURES, LABEL, prepare
from examples.flights.training import Scores, fit_with_shardfit, make_estimator, score, score_shardfit
from shardfit import ShardedDataConnector
from shardfit_pytorch import PyTorchDistributor, PyTorchDistributorResult

# Of planes that are not known these are missing, which a category can be and a whole number cannot.
EMBEDDED = (*CATEGORICAL, "plane_year", "plane_seats")
NUMERIC = tuple(name for name in FEATURES if name not in EMBEDDED)
EPOCHS = 4
GLOBAL_BATCH = 4096
WIDTH = 8


class TabularNetwork(nn.Module):
    """Embeds categories, scales numbers, and predicts one logit.

    Args:
        categories: How many each categorical column has.
        mean: Of each numeric column.
        deviation: Standard deviation of each numeric column.
    """

    def __init__(self, categories: list[int], mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        # One more for what is missing, or was not there in training.
        self.embeddings = nn.ModuleList(nn.Embedding(count + 1, WIDTH) for count in categories)
        self.mean = nn.Buffer(torch.tensor(mean))
        self.deviation = nn.Buffer(torch.tensor(deviation))
        width = len(mean) + WIDTH * len(categories)
        self.layers = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return logits, shape [rows], of numbers and codes of categories, shapes [rows, columns]."""
        scaled = (numbers - self.mean) / self.deviation
        embedded = [embedding(codes[:, column]) for column, embedding in enumerate(self.embeddings)]
        logits: torch.Tensor = self.layers(torch.cat([scaled, *embedded], dim=1))
        return logits[:, 0]


def network(shape: dict[str, Any]) -> TabularNetwork:
    """Return a new network for the table that `shape_of` was asked about."""
    torch.manual_seed(0)
    return TabularNetwork([len(shape["categories"][name]) for name in EMBEDDED], shape["mean"], shape["deviation"])


def shape_of(train: Path) -> dict[str, Any]:
    """Return what the network is built from, as JSON values: categories, means and deviations of the training rows."""
    table = pq.read_table(train, columns=list(FEATURES))
    numbers = [table[name].to_numpy().astype(np.float64) for name in NUMERIC]
    return {
        "categories": {name: sorted(table[name].drop_null().unique().to_pylist()) for name in EMBEDDED},
        "mean": [float(column.mean()) for column in numbers],
        "deviation": [float(column.std()) or 1.0 for column in numbers],
    }


def tensors_of(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return numbers and codes of a batch, shapes [rows, columns]."""
    numbers = torch.stack([batch[name].float() for name in NUMERIC], dim=1)
    return numbers, torch.stack([batch[name].long() for name in EMBEDDED], dim=1)


def train_func(context: Any) -> None:
    """Train on this rank's share of each global batch."""
    shape = context.get_hyper_params()
    model = context.prepare_model(network(shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    shard = context.get_dataset_map()["train"].get_shard()
    dataset = shard.to_torch_dataset(
        global_batch_size=GLOBAL_BATCH, shuffle=True, columns=[*FEATURES, LABEL], categories=shape["categories"]
    )
    for epoch in range(EPOCHS):
        total = torch.zeros(())
        for batch in dataset:
            loss = nn.functional.binary_cross_entropy_with_logits(model(*tensors_of(batch)), batch[LABEL].float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        context.get_metrics_reporter().log_metrics({"train-logloss": total / len(dataset)}, step=epoch)
        context.save_checkpoint(model, optimizer)
    if context.get_rank() == 0:
        torch.save(model.module.state_dict(), Path(context.get_model_dir(), "model.pt"))


def fit(train: Path, shape: dict[str, Any], stage: Path) -> PyTorchDistributorResult:
    """Run the loop on all CPUs of this machine, or on every node of a cluster; on its GPUs if there are any."""
    datasets = {"train": ShardedDataConnector.from_parquet(train)}
    return PyTorchDistributor(train_func).run(datasets, shape, str(stage))


def probabilities(result: PyTorchDistributorResult, shape: dict[str, Any], held_out: Path) -> npt.NDArray[np.float64]:
    """Return the published network's probabilities for the held-out month, in row order."""
    model = network(shape)
    model.load_state_dict(torch.load(Path(result.get_model_dir()) / "model.pt", weights_only=True))
    dataset = ShardedDataConnector.from_parquet(held_out).connector.to_torch_dataset(
        batch_size=8192, columns=list(FEATURES), categories=shape["categories"]
    )
    with torch.no_grad():
        found = [torch.sigmoid(model(*tensors_of(batch))) for batch in dataset]
    return torch.cat(found).double().numpy()


def main(folder: Path = Path(".demo"), console: Console | None = None) -> tuple[Scores, Scores]:
    """Run the demo and show every step.

    Args:
        folder: Where the flights and the stage go; made when missing.
        console: Where to write; the terminal if None.

    Returns:
        The scores of the network, and of XGBoost.
    """
    console = console or Console()
    stage = folder / "stage"
    console.rule("[bold]1. The data")
    with timed(console, "336,776 flights, one Parquet file a month"):
        train, held_out = prepare(folder / "flights", HELD_OUT_MONTH)
    show.data(console, train, held_out)

    console.rule("[bold]2. A network in PyTorch")
    with timed(console, f"{EPOCHS} epochs in global batches of {GLOBAL_BATCH:,} rows"):
        shape = shape_of(train)
        result = fit(train, shape, stage)
    for reason in result.result.plan.layout.reasons:
        console.print(f"- {reason}")
    coverage = result.coverage["train"]
    console.print(f"Rows of the last epoch: {coverage.planned.rows:,} planned, {coverage.handed.rows:,} handed over.")
    console.print(f"Log-loss by epoch: {', '.join(f'{loss:.4f}' for loss in result.result.metrics['train-logloss'])}")
    console.print(f"The model: {result.get_model_dir()}")

    console.rule("[bold]3. XGBoost on the same rows")
    with timed(console, "trained and predicted"):
        estimator = make_estimator(stage)
        fit_with_shardfit(estimator, train, held_out, verbose_eval=0)
    label = pq.read_table(held_out, columns=[LABEL])[LABEL].to_numpy()
    ours = score(label, probabilities(result, shape, held_out), EPOCHS)
    theirs = score_shardfit(estimator, held_out)
    show.scores(console, ours, theirs, ("PyTorch network", "XGBoost"))
    return ours, theirs


if __name__ == "__main__":
    main()

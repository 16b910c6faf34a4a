"""Rows for a PyTorch loop: each once an epoch, the same number of steps on every rank, resumable at any step."""

from shardfit_pytorch.data.batch import Batch
from shardfit_pytorch.data.connectors import BoundShardedConnector, ShardConnector, to_torch_dataset
from shardfit_pytorch.data.position import Deal, Position
from shardfit_pytorch.data.torch_dataset import ShardfitDataset
from shardfit_pytorch.data.tracker import ConsumedStep, Tracker

__all__ = [
    "Batch",
    "BoundShardedConnector",
    "ConsumedStep",
    "Deal",
    "Position",
    "ShardConnector",
    "ShardfitDataset",
    "Tracker",
    "to_torch_dataset",
]

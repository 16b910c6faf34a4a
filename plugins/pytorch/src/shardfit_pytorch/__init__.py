"""PyTorch for shardfit: `PyTorchDistributor` runs your loop on every worker, and the trainer plugin behind it."""

from shardfit_pytorch.config import PyTorchScalingConfig, WorkerResourceConfig
from shardfit_pytorch.distributor import PyTorchDistributor, PyTorchDistributorResult
from shardfit_pytorch.run_context import get_context

__all__ = [
    "PyTorchDistributor",
    "PyTorchDistributorResult",
    "PyTorchScalingConfig",
    "WorkerResourceConfig",
    "get_context",
]

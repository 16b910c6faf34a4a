"""Train from tables larger than one machine: the same model however many workers trained it."""

from shardfit.artifacts import ArtifactStore
from shardfit.binned_trainer import BinnedTrainer
from shardfit.cancellation import Cancellation
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.engine import WorkerContext
from shardfit.errors import ShardfitError
from shardfit.events import Event
from shardfit.hookspecs import hookimpl
from shardfit.job import Job
from shardfit.registry import Registry, default_registry
from shardfit.resume_run import resume_run
from shardfit.run import TrainResult
from shardfit.run_plan import RunPlan, plan_run
from shardfit.scaling import WorkerLayout
from shardfit.shard_plan import ShardPlan, World
from shardfit.sharded_connector import ShardedDataConnector
from shardfit.source import Claim, DataSource, Fragment
from shardfit.train import train
from shardfit.trainer import Trainer

__all__ = [
    "ArtifactStore",
    "BinnedTrainer",
    "Cancellation",
    "Claim",
    "ColumnRoles",
    "DataConnector",
    "DataSource",
    "Event",
    "Fragment",
    "Job",
    "Registry",
    "RunPlan",
    "ShardPlan",
    "ShardedDataConnector",
    "ShardfitError",
    "TrainResult",
    "Trainer",
    "WorkerContext",
    "WorkerLayout",
    "World",
    "default_registry",
    "hookimpl",
    "plan_run",
    "resume_run",
    "train",
]

"""Stages: models published atomically to S3, GCS, Azure or a directory, and read back checked."""

from shardfit_stages.catalogue import Catalogue, StageTarget
from shardfit_stages.openers import use_catalogue

__all__ = ["Catalogue", "StageTarget", "use_catalogue"]

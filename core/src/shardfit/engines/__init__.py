"""The two engines: this process, and a Ray cluster."""

from shardfit.engines.discovery import current_resources, find_cluster, make_engine

__all__ = ["current_resources", "find_cluster", "make_engine"]

"""What to train, on what, how: one frozen value, from keyword arguments or from a TOML file."""

from shardfit.job.job import Job

__all__ = ["Job"]

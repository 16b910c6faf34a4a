"""The command line: `shardfit train`, `plan`, `plugins`, `cluster`, `runs`, `new-plugin`."""

from shardfit.cli.commands import app, main

__all__ = ["app", "main"]

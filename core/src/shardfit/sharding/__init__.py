"""Sharding strategies that ship with the core, one pure function a file."""

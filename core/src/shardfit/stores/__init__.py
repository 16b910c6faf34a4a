"""Artifact stores that ship with the core."""

"""Which plugins there are and what they provide."""

from shardfit.registry.registry import BUILTIN, KINDS, Kind, PluginInfo, Registry, default_registry

__all__ = ["BUILTIN", "KINDS", "Kind", "PluginInfo", "Registry", "default_registry"]

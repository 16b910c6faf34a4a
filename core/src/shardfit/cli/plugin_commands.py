"""Commands that plugins add to the command line, looked up when one is asked for that the core does not have."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from shardfit.names import unknown_name
from shardfit.registry import default_registry


class WithPluginCommands(TyperGroup):
    """The core's commands, then those of the hook `shardfit_commands`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the core's commands, then of the plugins'."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in default_registry().names("commands") if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None where neither the core nor a plugin has it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        known = default_registry().names("commands")
        if cmd_name in known:
            return typer.main.get_command(default_registry().get("commands", cmd_name)())
        if (error := unknown_name("commands", cmd_name, known)) and "pip install" in error.advice:
            ctx.fail(str(error))
        return None
